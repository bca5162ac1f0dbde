"""One reinforcement learning of a small policy, against a rule, a reward model, or both.

Run as `python recipes/rl/policy.py --reward hybrid --seed 0`. SmolLM2-135M is asked for favourable sentences
(policy_task.py) and trained by TRL's GRPOTrainer. `--reward` is one of

    rule    1 if the sentence keeps to the rule, else 0
    model   the reward model's raw reward
    hybrid  1 if it keeps to the rule, else the sigmoid of the reward, from the untrained policy's mean

Before and after, the policy answers prompts with words and subjects that are not in its training; what is
counted there is what it was trained on, what it was not, and what tells that a reward is exploited.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from policy_task import JUDGED, Task, keeps_rule, tasks
from scorers import trained
from smollm2 import freeze, save_policy

from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.integrations.judge_grpo import load_policy
from basereward.integrations.reward_source import RewardSource, reward_source
from basereward.integrations.shaping import hybrid, sigmoid
from basereward.integrations.trl import reward_func, rule_reward
from basereward.storage.atomic import write_text

REWARDS = ("rule", "model", "hybrid")
MAX_TOKENS = 24
TRAIN_SEED, TEST_SEED, DRAW_SEED = 1, 2, 3
COURSE = {
    "rule": "rewards/rule/mean",
    "model": "model/raw",
    "judge": "judge/raw",
    "kl": "kl",
    "length": "completions/mean_length",
    "entropy": "entropy",
    "seconds": "step_time",
}
"""What is kept of TRL's log, by the names it has there."""


def answers(
    policy: Any, tokenizer: Any, asked: Sequence[Task], *, num: int, seed: int = DRAW_SEED
) -> tuple[list[str], Any]:
    """Return drawn answers [T * N] of a policy to T tasks, always of the same draws, and their tokens."""
    policy.eval()
    given = [[{"role": "user", "content": task.prompt}] for task in asked for _ in range(num)]
    inputs = tokenizer.apply_chat_template(
        given, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    torch.manual_seed(seed)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tokens = policy.generate(
            **inputs, max_new_tokens=MAX_TOKENS, do_sample=True, top_k=0, temperature=1.0
        )
    start = inputs["input_ids"].shape[1]
    texts = tokenizer.batch_decode(tokens[:, start:], skip_special_tokens=True)
    return texts, (tokens, start)


def log_probabilities(policy: Any, tokenizer: Any, written: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities [B, L] of what was written, and which of its tokens count [B, L]."""
    tokens, start = written
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    own = tokens[:, start:]
    # All up to the first end, that included.
    counts = ((own == end).cumsum(1) - (own == end).long()) == 0
    seen = torch.cat([(tokens[:, :start] != pad).long(), counts.long()], dim=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = policy(tokens, attention_mask=seen, logits_to_keep=own.shape[1] + 1).logits[:, :-1]
    found = logits.float().log_softmax(-1).gather(2, own[..., None])[..., 0]
    return found, counts


def scores(source: RewardSource, texts: Sequence[str]) -> list[float]:
    """Return the rewards of answers that can be scored."""
    found = source([Comparison(JUDGED, [text]) for text in texts if text.strip()])
    return [rewards[0] for rewards in found if not isinstance(rewards, DataError)]


def measured(
    policy: Any, reference: Any, tokenizer: Any, sources: dict[str, RewardSource], *, num_prompts: int
) -> dict[str, Any]:
    """Return what a policy's answers to unseen prompts are like."""
    asked = tasks(num_prompts, TEST_SEED, are_unseen=True)
    texts, written = answers(policy, tokenizer, asked, num=2)
    own, counts = log_probabilities(policy, tokenizer, written)
    other, _ = log_probabilities(reference, tokenizer, written)
    words = [text.lower().split() for text in texts]
    pairs = [list(pairwise(each)) for each in words]
    opened = Counter(" ".join(each[:3]) for each in words if each)
    return {
        "rule": statistics.mean(
            keeps_rule(text, task.word)
            for text, task in zip(texts, [task for task in asked for _ in range(2)], strict=True)
        ),
        **{name: statistics.mean(scores(source, texts)) for name, source in sources.items()},
        # Per answer, by its own tokens: mean over answers of the sum of log p / p of the reference.
        "kl": float(((own - other) * counts).sum(1).mean()),
        "length": float(counts.sum(1).float().mean()),
        "ended": float((written[0][:, written[1] :] == tokenizer.eos_token_id).any(1).float().mean()),
        "repeated_pairs": statistics.mean(1 - len(set(each)) / len(each) for each in pairs if each),
        "same_opening": max(opened.values()) / len(texts),
        "num_answers": len(texts),
        "examples": texts[::8][:8],
    }


def reinforce(
    kind: str, policy: Any, tokenizer: Any, sources: dict[str, RewardSource], arguments: Any, center: float
) -> list[dict[str, float]]:
    """Train a policy in place; return the training's course."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = tasks(512, TRAIN_SEED)
    data = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": task.prompt}] for task in rows],
            "answer": [task.word for task in rows],
            "judged": [JUDGED] * len(rows),
        }
    )
    shapes = [hybrid(keeps_rule, otherwise=sigmoid(center=center))] if kind == "hybrid" else []
    freeze(policy, arguments.frozen_layers)
    trainer = GRPOTrainer(
        policy,
        reward_funcs=[
            rule_reward(keeps_rule, name="rule"),
            reward_func(sources["model"], shapes=shapes, prompt_column="judged", name="model"),
            reward_func(sources["judge"], prompt_column="judged", name="judge"),
        ],
        args=GRPOConfig(
            str(arguments.output / "trl"),
            # The judge is only watched, and so is what an arm isn't trained on.
            reward_weights=[float(kind == "rule"), float(kind != "rule"), 0.0],
            num_generations=8,
            per_device_train_batch_size=32,
            max_completion_length=MAX_TOKENS,
            max_steps=arguments.steps,
            learning_rate=arguments.lr,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=2,
            beta=0.001,
            logging_steps=1,
            seed=arguments.seed,
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    return [{name: entry[theirs] for name, theirs in COURSE.items()} for entry in steps]


SETTINGS = ("steps", "lr", "frozen_layers", "prompts")
"""Arguments that change a result, and stand in it."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of this script's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reward", choices=REWARDS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=Path("runs/rl"), help="reward model and judge")
    parser.add_argument("--output", type=Path, help="runs/rl/REWARD-SEED if not given")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--frozen-layers", type=int, default=15, help="of 30; the embedding is frozen too")
    parser.add_argument("--prompts", type=int, default=32, help="unseen prompts, two answers each")
    return parser


def main() -> None:
    """Train one policy and write `result.json`."""
    arguments = parser().parse_args()
    arguments.output = arguments.output or arguments.models / f"{arguments.reward}-{arguments.seed}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    sources = {
        "model": reward_source(trained("reward", arguments.models)),
        "judge": reward_source(trained("judge", arguments.models)),
    }
    directory = save_policy(arguments.models / "smollm2")
    reference, _ = load_policy(directory)
    policy, tokenizer = load_policy(directory)
    before = measured(reference, reference, tokenizer, sources, num_prompts=arguments.prompts)
    course = reinforce(arguments.reward, policy, tokenizer, sources, arguments, before["model"])
    after = measured(policy, reference, tokenizer, sources, num_prompts=arguments.prompts)
    result = {
        "reward": arguments.reward,
        "seed": arguments.seed,
        **{name: getattr(arguments, name) for name in SETTINGS},
        "before": before,
        "after": after,
        "course": course,
        "seconds": time.perf_counter() - start,
    }
    write_text(arguments.output / "result.json", json.dumps(result, indent=1) + "\n")
    for name, value in after.items():
        print(f"{name}: {before[name]} -> {value}")


if __name__ == "__main__":
    main()
