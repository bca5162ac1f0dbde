"""The paper's reinforcement learning at full scale (arXiv 2509.16127, section 5.4.1): Qwen2.5-VL-3B by GRPO.

    torchrun --nproc-per-node 8 recipes/rl/qwen2_5_vl_3b.py --model REWARD_MODEL_DIR --data questions.jsonl

Rows have `image` (a path from the file's directory), `question` and `answer`; questions.py makes them of V*,
arXivQA and ThinkLite-VL. The first process of each node serves the reward model on one GPU, and all
processes of the node ask it (placement.py): on a GPU without a process, as `--nproc-per-node 4` leaves four,
or else on the last process's. The paper gives 8 rollouts a prompt, one epoch and
batches of 256, which are taken for answers here, and leaves open rates, lengths and the weight of the KL
term: these are marked as ours. Not run by us: it takes eight GPUs.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

import torch
from datasets import Image, load_dataset
from placement import node_scorer
from trl import GRPOConfig, GRPOTrainer

from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import hybrid
from basereward.integrations.trl import reward_func, rule_reward

POLICY = "Qwen/Qwen2.5-VL-3B-Instruct"
FORMAT = "Reason first. Then write the answer alone, as <answer>...</answer>."  # ours
NUM_ROLLOUTS, BATCH = 8, 256


def main() -> None:
    """Train the policy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="reward model's directory, or address of its server")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reward", choices=("rule", "model", "hybrid"), default="hybrid")
    parser.add_argument("--output", default="runs/rl/qwen2.5-vl-3b")
    parser.add_argument("--per-device", type=int, default=8, help="answers a forward pass of a GPU")
    parser.add_argument("--scorer-gpu", type=int, help="of each node, for the reward model")
    parser.add_argument("--scorer-port", type=int, default=8765, help="of each node, for the reward model")
    arguments = parser.parse_args()
    num_at_once = arguments.per_device * int(os.environ.get("WORLD_SIZE", "1"))
    if BATCH % num_at_once:
        parser.error(f"{num_at_once} answers at once don't divide the batch of {BATCH}; change --per-device")
    scorer = nullcontext("")
    if arguments.reward != "rule":
        scorer = node_scorer(
            arguments.model,
            port=arguments.scorer_port,
            num_gpus=torch.cuda.device_count(),
            gpu=arguments.scorer_gpu,
        )
    with scorer as address:
        train(arguments, address, num_at_once)


def train(arguments: argparse.Namespace, address: str, num_at_once: int) -> None:
    """Train the policy on the rewards of a server."""
    root = str(arguments.data.parent)
    rows = load_dataset("json", data_files=str(arguments.data), split="train")
    rows = rows.map(
        lambda row: {
            "prompt": [{"role": "user", "content": f"{row['question']}\n{FORMAT}"}],
            "image": f"{root}/{row['image']}",
        },
        remove_columns=["question"],
    ).cast_column("image", Image())

    if arguments.reward == "rule":
        reward = rule_reward(exact_match)
    else:
        shapes = [hybrid(exact_match)] if arguments.reward == "hybrid" else []
        reward = reward_func(address, shapes=shapes)
    trainer = GRPOTrainer(
        POLICY,
        reward_funcs=reward,
        args=GRPOConfig(
            arguments.output,
            num_generations=NUM_ROLLOUTS,
            per_device_train_batch_size=arguments.per_device,
            gradient_accumulation_steps=BATCH // num_at_once,
            num_train_epochs=1,
            learning_rate=1e-6,  # ours
            beta=0.001,  # ours
            max_completion_length=1024,  # ours
            bf16=True,
            gradient_checkpointing=True,
            save_steps=50,
            logging_steps=1,
        ),
        train_dataset=rows,
    )
    trainer.train()
    trainer.save_model(f"{arguments.output}/policy")


if __name__ == "__main__":
    main()
