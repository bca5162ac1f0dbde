"""The paper's reinforcement learning at full scale (arXiv 2509.16127, section 5.4.1): Qwen2.5-VL-3B by GRPO.

    torchrun --nproc-per-node 8 recipes/rl/qwen2_5_vl_3b.py --model REWARD_MODEL_DIR --data questions.jsonl

Rows have `image` (a path beside the file), `question` and `answer`; the paper's are V*, arXivQA and
ThinkLite-VL. It gives 8 rollouts a prompt, one epoch and batches of 256, which are taken for answers here,
and leaves open rates, lengths and the weight of the KL term: these are marked as ours. Not run by us: it
takes eight GPUs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Image, load_dataset
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
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--per-device", type=int, default=8, help="answers a forward pass of a GPU")
    arguments = parser.parse_args()

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
        reward = reward_func(arguments.model, shapes=shapes, device="cuda")
    GRPOTrainer(
        POLICY,
        reward_funcs=reward,
        args=GRPOConfig(
            arguments.output,
            num_generations=NUM_ROLLOUTS,
            per_device_train_batch_size=arguments.per_device,
            gradient_accumulation_steps=BATCH // (arguments.per_device * arguments.gpus),
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
    ).train()


if __name__ == "__main__":
    main()
