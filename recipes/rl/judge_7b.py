"""Reinforcement learning of a 7B judge that reasons, by StableReinforce (R1-Reward, arXiv 2505.02835).

    torchrun --nproc-per-node 8 recipes/rl/judge_7b.py --data data/r1-reward-hard.jsonl \\
        --consistency http://127.0.0.1:8000/v1

It goes on from the model of judge_7b_sft.toml, whose head says how the traces are made. The reward is that of
right verdicts, of the form, and of a reasoning that agrees with its verdict, which a served
Qwen2.5-VL-7B-Instruct rates (`vllm serve`); without `--consistency` the words of the reasoning do. The
paper's settings: 5 epochs, a rate of 1e-6, batches of 128 of the 256 answers that are drawn at a time, no KL
term, advantages over the batch and none beyond three deviations, ratios clipped to [0.001, 1000] and then to
1 ± 0.2. Four answers a prompt and their length are ours. Not run by us at this size: it takes eight GPUs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from chat_server import ChatServer, consistency
from trl import GRPOConfig

from basereward.comparison import Comparison
from basereward.data.formats import DetectedDataset
from basereward.integrations import judge_grpo
from basereward.integrations.filtered_grpo import FilteredGRPOTrainer

LAYERS = ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock")
BATCH, DRAWN, NUM_ANSWERS = 128, 256, 4
MAX_TOKENS = 1024


def settings(output: str, *, world_size: int, per_device: int, epochs: float) -> dict[str, Any]:
    """Return the settings of the trainer.

    Raises:
        SystemExit: When the answers at once don't divide the batch.
    """
    at_once = per_device * world_size
    if BATCH % at_once:
        raise SystemExit(f"{at_once} answers at once don't divide the batch of {BATCH}; change --per-device")
    return {
        "output_dir": output,
        "scale_rewards": "batch",
        "num_generations": NUM_ANSWERS,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": BATCH // at_once,
        "steps_per_generation": DRAWN // at_once,
        "num_train_epochs": epochs,
        "learning_rate": 1e-6,
        "beta": 0.0,
        "epsilon": 0.2,
        "max_completion_length": MAX_TOKENS,
        "bf16": True,
        "gradient_checkpointing": True,
        "save_steps": 50,
        "logging_steps": 1,
    }


def sharded() -> dict[str, Any]:
    """Return the settings by which processes share one copy of weights, gradients and moments."""
    return {"fsdp": "full_shard auto_wrap", "fsdp_config": {"transformer_layer_cls_to_wrap": list(LAYERS)}}


def hard_rows(path: Path) -> list[Comparison]:
    """Return the rows to reinforce on."""
    return [row for row in DetectedDataset(path).read() if isinstance(row, Comparison)]


def main() -> None:
    """Reinforce the judge, and write its policy and its model directory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sft", type=Path, default=Path("runs/rl/r1-reward/sft/model"))
    parser.add_argument("--data", type=Path, required=True, help="the hard rows that traces.py wrote")
    parser.add_argument("--output", type=Path, default=Path("runs/rl/r1-reward"))
    parser.add_argument("--consistency", help="address of a served model that rates reasonings, up to /v1")
    parser.add_argument("--consistency-model", default="Qwen/Qwen2.5-VL-7B-Instruct", help="its name there")
    parser.add_argument("--backbone", default="qwen-vl", help="the backbone for the policy's kind of model")
    parser.add_argument("--per-device", type=int, default=4, help="answers a forward pass of a GPU")
    parser.add_argument("--epochs", type=float, default=5.0)
    arguments = parser.parse_args()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rate = judge_grpo.stated_preference
    if arguments.consistency:
        rate = consistency(ChatServer(arguments.consistency, arguments.consistency_model, max_tokens=8))
    made = settings(
        str(arguments.output / "grpo"),
        world_size=world_size,
        per_device=arguments.per_device,
        epochs=arguments.epochs,
    )
    reinforce(arguments, GRPOConfig(**made, **(sharded() if world_size > 1 else {})), rate)


def reinforce(arguments: argparse.Namespace, config: Any, rate: judge_grpo.Consistency) -> None:
    """Train by the settings, and save the policy and the judge that it makes."""
    policy, processor = judge_grpo.load_policy(arguments.sft)
    trainer = FilteredGRPOTrainer(
        policy,
        reward_funcs=judge_grpo.r1_reward(rate),
        args=config,
        train_dataset=judge_grpo.judge_prompts(hard_rows(arguments.data), processor),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model(str(arguments.output / "policy"))
    if trainer.is_world_process_zero():
        judge_grpo.save_judge(
            arguments.output / "policy",
            arguments.output / "model",
            backbone=arguments.backbone,
            max_answer_tokens=MAX_TOKENS,
        )


if __name__ == "__main__":
    main()
