"""Reinforcement learning of a small generative judge, from a few judgements to right verdicts.

Run as `python recipes/rl/judge.py`. SmolLM2-135M first learns from some judgements (`basereward train`,
judge_sft.toml), then GRPO gives it R1-Reward's reward for right verdicts on pairs of which only the ranks
are known, once for each seed. Each step has both orders of each pair, so that no position is right more
often than the other. All judges are asked about the same pairs, in both orders, with subjects that no
training has.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from judge_report import Outcome, course_table, draw, summary, table
from judge_task import comparisons, rows
from smollm2 import freeze, save_policy

from basereward import train
from basereward.comparison import Comparison
from basereward.config import Component, Source, load_run
from basereward.errors import ConfigError
from basereward.hardware.precision import device_of, training_precision
from basereward.integrations import judge_grpo
from basereward.paradigms.verdicts import read_verdict
from basereward.plugins import manager
from basereward.scoring.reward_model import RewardModel
from basereward.storage.atomic import write_text

TEMPLATE = "brief"
MAX_TOKENS = 24
SFT_SEED, RL_SEED, TEST_SEED = 1, 1000, 3
FROZEN_LAYERS = 15
COURSE = {
    "reward": "reward",
    "accuracy": "rewards/verdict_reward/mean",
    "form": "rewards/format_reward/mean",
    "consistency": "rewards/position_consistency/mean",
    "first": "rewards/first_preferred/mean",
    "length": "completions/mean_length",
    "entropy": "entropy",
    "kl": "kl",
    "seconds": "step_time",
}
"""What is kept of TRL's log, by the names it has there."""

SETTINGS = ("form_rows", "steps", "pairs", "generations", "lr", "beta", "unseen")
"""Arguments that decide what is made, and stand in the results."""


def claim(output: Path, settings: dict[str, Any]) -> None:
    """Make the directory for these settings.

    Raises:
        ConfigError: When what is there was made with others, whose results would be taken for those of these.
    """
    path = output / "settings.json"
    if path.is_file():
        made = json.loads(path.read_text(encoding="utf-8"))
        other = {name: made.get(name) for name, value in settings.items() if made.get(name) != value}
        if other:
            raise ConfigError(f"{output} was made with {other}; give those, or another --output")
    elif output.is_dir() and any(output.iterdir()):
        raise ConfigError(
            f"{output} has files and no settings.json, which says how they were made; give another --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings) + "\n")


def supervise(output: Path, num_rows: int) -> Path:
    """Train on judgements, unless that is done; return the model directory."""
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


def watchers(num_generations: int) -> list[Callable[..., list[float]]]:
    """Return functions of TRL's form that measure both orders of each pair, which follow each other."""

    def position_consistency(
        completions: Sequence[Any], verdict: Sequence[int], **columns: Any
    ) -> list[float]:
        right = judge_grpo.verdict_reward(completions, verdict, **columns)
        form = judge_grpo.format_reward(completions, **columns)
        preferred = [found if has_form else None for found, has_form in zip(right, form, strict=True)]
        shares = []
        for number, own in enumerate(preferred):
            block = number // num_generations ^ 1  # of the pair's other order
            other = preferred[block * num_generations : (block + 1) * num_generations]
            shares.append(sum(own == each is not None for each in other) / num_generations)
        return shares

    def first_preferred(completions: Sequence[Any], verdict: Sequence[int], **columns: Any) -> list[float]:
        return judge_grpo.verdict_reward(completions, [1] * len(completions), **columns)

    return [judge_grpo.verdict_reward, judge_grpo.format_reward, position_consistency, first_preferred]


def reinforce(sft: Path, output: Path, arguments: argparse.Namespace, seed: int) -> list[dict[str, float]]:
    """Train by GRPO; write the policy to `policy`, the judge to `model`, and return the training's course."""
    from trl import GRPOConfig

    from basereward.integrations.filtered_grpo import FilteredGRPOTrainer

    policy, tokenizer = judge_grpo.load_policy(sft)
    freeze(policy, FROZEN_LAYERS)
    device = device_of()
    precision = training_precision("auto", device, policy.config.hidden_size)
    num = arguments.pairs * 2 * arguments.generations
    pairs = comparisons(arguments.pairs * arguments.steps, RL_SEED + seed)
    watched = watchers(arguments.generations)
    trainer = FilteredGRPOTrainer(
        policy,
        reward_funcs=[judge_grpo.r1_reward(judge_grpo.stated_preference), *watched],
        args=GRPOConfig(
            str(output / "grpo"),
            reward_weights=[1.0, *(0.0 for _ in watched)],
            scale_rewards="batch",
            num_generations=arguments.generations,
            per_device_train_batch_size=num // 4,
            gradient_accumulation_steps=4,
            # Both orders of a pair follow each other, and are in one step.
            shuffle_dataset=False,
            max_completion_length=MAX_TOKENS,
            max_steps=arguments.steps,
            learning_rate=arguments.lr,
            beta=arguments.beta,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=2,
            logging_steps=1,
            seed=seed,
            bf16=precision.name == "bf16",
            use_cpu=device.type == "cpu",
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=judge_grpo.judge_prompts(pairs, tokenizer, template=TEMPLATE),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(output / "policy"))
    judge_grpo.save_judge(
        output / "policy", output / "model", template=TEMPLATE, max_answer_tokens=MAX_TOKENS
    )
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    course = [{name: entry[theirs] for name, theirs in COURSE.items() if theirs in entry} for entry in steps]
    return [{**step, "failures": 1 - step["form"]} for step in course]


def judged(directory: Path, unseen: Sequence[Comparison], *, batch_size: int = 30) -> list[Outcome]:
    """Return a judge's likeliest answers to each pair, with the better response shown first and second."""
    model = RewardModel.load(directory, precision="auto")
    outcomes: list[Outcome] = []
    for start in range(0, len(unseen), batch_size):
        batch = unseen[start : start + batch_size]
        with model.precision.autocast():
            answers = model.paradigm.texts_of([model.paradigm.prepare(comparison) for comparison in batch])
        for comparison, found in zip(batch, answers, strict=True):
            better = comparison.pairs()[0].chosen
            preferred: list[int | None] = [None, None]
            for answer in found:
                verdict = read_verdict(str(answer["text"]))
                if verdict is not None:
                    shown = answer["first"] if verdict == 1 else answer["second"]
                    preferred[answer["first"] != better] = int(shown == better)
            outcomes.append(preferred)
    return outcomes


def main() -> None:
    """Train the judge, reinforce it with each seed, and print how all of them do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/rl/generative-judge"),
        help="what is there already is not made again; other settings need another directory",
    )
    parser.add_argument("--results", type=Path, help="write the results as JSON")
    parser.add_argument("--plot", type=Path, help="draw the courses")
    parser.add_argument("--form-rows", type=int, default=72, help="comparisons with judgements")
    parser.add_argument("--steps", type=int, default=10, help="GRPO's optimizer steps")
    parser.add_argument("--pairs", type=int, default=8, help="pairs a step, each in both orders")
    parser.add_argument("--generations", type=int, default=3, help="answers to each question")
    parser.add_argument("--lr", type=float, default=5e-5, help="GRPO's learning rate")
    parser.add_argument("--beta", type=float, default=0.0, help="weight of KL")
    parser.add_argument("--unseen", type=int, default=100, help="comparisons to test on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    try:
        claim(arguments.output, settings)
    except ConfigError as error:
        parser.error(str(error))
    unseen = comparisons(arguments.unseen, TEST_SEED, are_unseen=True)
    sft = supervise(arguments.output, arguments.form_rows)
    before = judged(sft, unseen)
    print("before:", summary(before), flush=True)
    runs = []
    for seed in arguments.seeds:
        output = arguments.output / f"seed-{seed}"
        kept = output / "result.json"
        if not kept.is_file():
            output.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            course = reinforce(sft, output, arguments, seed)
            seconds = time.perf_counter() - start
            outcomes = judged(output / "model", unseen)
            run = {"seed": seed, "outcomes": outcomes, "course": course, "seconds": seconds}
            write_text(kept, json.dumps(run) + "\n")
        runs.append(json.loads(kept.read_text(encoding="utf-8")))
        print(f"after, seed {seed}:", summary(runs[-1]["outcomes"]), flush=True)
    results: dict[str, Any] = {
        "machine": {"platform": platform.platform(), "command": " ".join(sys.argv)},
        "settings": settings,
        "before": {"outcomes": before},
        "runs": runs,
    }
    if arguments.results:
        write_text(arguments.results, json.dumps(results) + "\n")
    if arguments.plot:
        draw(results, arguments.plot)
    print(table(results), course_table(results), sep="\n\n")


if __name__ == "__main__":
    main()
