"""Reinforcement learning of a small generative judge, from the form of a judgement to right verdicts.

Run as `python recipes/rl/judge.py`. SmolLM2-135M first learns the form from a few judgements (`basereward
train`, judge_sft.toml), then GRPO gives it R1-Reward's reward for right verdicts. Both judges are asked
about the same pairs that neither has seen, in both orders.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from judge_task import comparisons, rows
from smollm2 import freeze, save_policy

from basereward import train
from basereward.comparison import Comparison
from basereward.config import Component, Source, load_run
from basereward.integrations import judge_grpo
from basereward.paradigms.verdicts import read_verdict
from basereward.plugins import manager
from basereward.scoring.reward_model import RewardModel

SFT_SEED, RL_SEED, TEST_SEED = 1, 2, 3
FROZEN_LAYERS = 15
COURSE = {
    "reward": "reward",
    "format": "rewards/format_reward/mean",
    "accuracy": "rewards/verdict_reward/mean",
    "length": "completions/mean_length",
    "entropy": "entropy",
    "seconds": "step_time",
}
"""What is kept of TRL's log, by the names it has there."""


def teach_form(output: Path, num_rows: int) -> Path:
    """Train on judgements in the right form, unless that is done; return the model directory."""
    directory = output / "sft" / "model"
    if (directory / "reward_config.json").is_file():
        return directory
    data = output / "judgements.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(comparisons(num_rows, SFT_SEED))))
    config = load_run(Path(__file__).with_name("judge_sft.toml"))
    policy = save_policy(output / "smollm2")
    backbone = Component(config.backbone.name, {**config.backbone.options, "model": str(policy)})
    source = Source("basereward", {"path": str(data)})
    config = replace(
        config,
        output=str(output / "sft"),
        backbone=backbone,
        data=replace(config.data, train=(source,)),
    )
    return Path(train(config, overwrite=True, progress=False, plugins=manager()).model_dir)


def reinforce(sft: Path, output: Path, *, num_steps: int, lr: float, seed: int) -> list[dict[str, float]]:
    """Train by GRPO; write the policy to `policy`, the judge to `model`, and return the training's course."""
    from trl import GRPOConfig

    from basereward.integrations.filtered_grpo import FilteredGRPOTrainer

    policy, tokenizer = judge_grpo.load_policy(sft)
    freeze(policy, FROZEN_LAYERS)
    trainer = FilteredGRPOTrainer(
        policy,
        # The last two are only watched: their weights are 0.
        reward_funcs=[
            judge_grpo.r1_reward(judge_grpo.stated_preference),
            judge_grpo.format_reward,
            judge_grpo.verdict_reward,
        ],
        args=GRPOConfig(
            str(output / "grpo"),
            reward_weights=[1.0, 0.0, 0.0],
            scale_rewards="batch",
            num_generations=4,
            per_device_train_batch_size=16,
            max_completion_length=40,
            max_steps=num_steps,
            learning_rate=lr,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=2,
            logging_steps=1,
            seed=seed,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=judge_grpo.judge_prompts(comparisons(512, RL_SEED), tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(output / "policy"))
    judge_grpo.save_judge(output / "policy", output / "model", max_answer_tokens=40)
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    return [{name: entry[theirs] for name, theirs in COURSE.items()} for entry in steps]


def judged(directory: Path, unseen: list[Comparison]) -> dict[str, float]:
    """Return how a judge does on comparisons: its likeliest answers to each pair in both orders."""
    paradigm = RewardModel.load(directory).paradigm
    counts = {"format": 0, "accuracy": 0, "first": 0, "consistent": 0}
    for comparison in unseen:
        verdicts = []
        for answer in paradigm.judge(comparison):
            verdict = read_verdict(answer["text"])
            better = comparison.pairs()[0].chosen
            counts["format"] += verdict is not None
            counts["accuracy"] += verdict == (1 if answer["first"] == better else 2)
            counts["first"] += verdict == 1
            verdicts.append(verdict)
        counts["consistent"] += sorted(map(str, verdicts)) == ["1", "2"]
    num = 2 * len(unseen)
    return {
        "format_rate": counts["format"] / num,
        "accuracy": counts["accuracy"] / num,
        "first_preferred": counts["first"] / num,
        "position_consistency": counts["consistent"] / len(unseen),
        "num_answers": num,
    }


def main() -> None:
    """Teach the form, reinforce, and print how both judges do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/rl/generative-judge"))
    parser.add_argument("--results", type=Path, help="write the results as JSON")
    parser.add_argument("--form-rows", type=int, default=40, help="comparisons that teach the form")
    parser.add_argument("--steps", type=int, default=14, help="GRPO's optimizer steps")
    parser.add_argument("--lr", type=float, default=1e-5, help="GRPO's learning rate")
    parser.add_argument("--unseen", type=int, default=32, help="comparisons to test on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    unseen = comparisons(arguments.unseen, TEST_SEED)
    start = time.perf_counter()
    sft = teach_form(arguments.output, arguments.form_rows)
    sft_seconds = time.perf_counter() - start
    start = time.perf_counter()
    before = judged(sft, unseen)
    print("after the form:", before, flush=True)
    start = time.perf_counter()
    course = reinforce(sft, arguments.output, num_steps=arguments.steps, lr=arguments.lr, seed=arguments.seed)
    rl_seconds = time.perf_counter() - start
    after = judged(arguments.output / "model", unseen)
    print("after GRPO:    ", after)
    results: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "before": before,
        "after": after,
        "sft_seconds": sft_seconds,
        "rl_seconds": rl_seconds,
        "course": course,
    }
    if arguments.results:
        arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
