"""A judge's prompts, rewards and directory; and a step of TRL's trainer with the advantage filter."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from basereward import Comparison, RewardModel
from basereward.errors import ConfigError, DataError
from basereward.integrations import judge_grpo
from basereward.integrations.judge_grpo import (
    format_reward,
    judge_prompts,
    load_policy,
    r1_reward,
    save_judge,
    stated_preference,
    verdict_reward,
)

RIGHT = "<think>Response 1 is better.</think><answer>1</answer>"
MUDDLED = "<think>Response 2 is clearly better.</think><answer>1</answer>"
WRONG = "<think>Response 2 is better.</think><answer>2</answer>"
SILENT = "<think>hm</think>\n<answer> 1 </answer>"
FORMLESS = "Response 1 is better: <answer>1</answer>"
ALL = [RIGHT, MUDDLED, WRONG, SILENT, FORMLESS]
ONES = [1] * len(ALL)


@pytest.fixture(scope="module")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_causal_lm(tmp_path_factory.mktemp("policy") / "policy"))


def test_rewards_are_those_of_the_formula() -> None:
    conversations = [[{"role": "assistant", "content": text}] for text in ALL]
    assert format_reward(ALL) == format_reward(conversations) == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert verdict_reward(ALL, ONES) == verdict_reward(conversations, ONES) == [1.0, 1.0, 0.0, 1.0, 0.0]
    # Result * (1 + 0.5 * Consistency) + 0.5 * Format
    assert r1_reward()(ALL, ONES) == [1.5, 1.5, 0.5, 1.5, 0.0]
    assert r1_reward(stated_preference)(ALL, ONES) == [
        1 * (1 + 0.5) + 0.5,
        1 * (1 - 0.5) + 0.5,
        0.5,
        1 * (1 + 0.0) + 0.5,
        0.0,
    ]


def test_a_judge_of_consistency_is_asked_about_right_verdicts_only() -> None:
    seen = []

    def judge(reasoning: str, verdict: int) -> float:
        seen.append((reasoning, verdict))
        return 0.0

    r1_reward(judge, num_threads=1)(ALL, ONES)
    assert seen == [("Response 1 is better.", 1), ("Response 2 is clearly better.", 1), ("hm", 1)]


@pytest.mark.parametrize(
    ("reasoning", "agrees"),
    [
        ("Response 1 is better", 1.0),
        ("At first Response 2 seems better, but response 1 is much more clearly the best", 1.0),
        ("Answer 2 is preferable", -1.0),
        ("Response 1 is better; response 2 is not better in any way", 1.0),
        ("Response 1 has a cat. Response 2 has none.", 0.0),
        ("", 0.0),
    ],
)
def test_a_stated_preference_is_the_last_response_that_is_called_better(
    reasoning: str, agrees: float
) -> None:
    assert stated_preference(reasoning, 1) == agrees
    assert stated_preference(reasoning, 2) == -agrees


def test_each_pair_is_asked_about_in_both_orders_and_ties_are_not() -> None:
    pytest.importorskip("datasets")
    rows = judge_prompts([Comparison("what?", ["a", "b", "c"], ranks=[1, 0, 1])], tiny.tokenizer())
    asked = [row["prompt"][0]["content"] for row in rows]
    shown = [
        tuple(text.split(f"[Response {number}]\n")[1].split("\n")[0] for number in (1, 2)) for text in asked
    ]
    assert list(zip(shown, rows["verdict"], strict=True)) == [
        (("b", "a"), 1),
        (("a", "b"), 2),
        (("b", "c"), 1),
        (("c", "b"), 2),
    ]
    assert {"prompt", "verdict", "turn_opening"} == set(rows.column_names)
    assert set(rows["turn_opening"]) == {""}
    assert "[Question]\nwhat?\n" in asked[0]


def test_images_stand_in_the_prompt_where_the_template_has_them() -> None:
    pytest.importorskip("datasets")
    image = tiny.image(56, 28, 1)
    rows = judge_prompts(
        [
            Comparison("what is <image>?", ["a", "b"], images=[image], ranks=[0, 1]),
            Comparison("and now?", ["a", "b"], ranks=[0, 1]),
        ],
        tiny.tokenizer(),
    )
    parts = rows[0]["prompt"][0]["content"]
    before = parts[: [part["type"] for part in parts].index("image")]
    assert "".join(part["text"] for part in before).endswith("[Question]\nwhat is ")
    [shown] = rows[0]["images"]
    assert shown.convert("RGB").tobytes() == image.tobytes()
    assert rows[2]["images"] == []


@pytest.mark.parametrize(
    ("comparison", "error", "message"),
    [
        (
            Comparison("what?", ["a<|im_end|>", "b"], ranks=[0, 1], id="r1"),
            DataError,
            "comparison r1: prompt or responses: has the text '<|im_end|>', which the policy would read as a "
            "control token; remove it",
        ),
        (
            Comparison("what?", ["a", "b"], videos=["v.mp4"], ranks=[0, 1]),
            DataError,
            "videos: TRL's trainer shows no videos; take them out of the row",
        ),
        (
            Comparison("what?", ["a", "b"], ranks=[0, 0]),
            ConfigError,
            "there is no pair with a better response to ask about",
        ),
    ],
)
def test_what_can_not_be_asked_is_named(comparison: Comparison, error: type[Exception], message: str) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(error) as caught:
        judge_prompts([comparison], tiny.tokenizer())
    assert str(caught.value) == message


def test_a_template_without_reasoning_is_refused() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(ConfigError) as caught:
        judge_prompts([], tiny.tokenizer(), template="verdict")
    assert str(caught.value) == "judge template 'verdict' asks for a verdict; give one of reasoned verdicts"


def test_a_chat_template_that_opens_no_turn_to_answer_in_is_refused() -> None:
    pytest.importorskip("datasets")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(ConfigError) as caught:
        judge_prompts([Comparison("what?", ["a", "b"], ranks=[0, 1])], tokenizer)
    assert str(caught.value) == (
        "the policy's chat template doesn't know add_generation_prompt, so that the policy would be prompted "
        "without an open turn for its answer; add it to the template"
    )


def test_a_policy_becomes_a_judge_and_a_judge_a_policy_with_the_same_logits(
    policy_dir: Path, tmp_path: Path
) -> None:
    policy, _ = load_policy(policy_dir)
    save_judge(policy_dir, tmp_path / "judge", max_answer_tokens=4)
    judge = RewardModel.load(tmp_path / "judge")
    assert judge.components["paradigm"]["options"]["template"] == "reasoned"
    assert judge.paradigm.max_answer_tokens == 4
    again, tokenizer = load_policy(tmp_path / "judge")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, policy(ids).logits)
    assert tokenizer.padding_side == "left"


def by_transformers(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory)


def saved_without_cache(directory: Path) -> Any:
    """Load a policy out of a directory that says, as they used to, that the model has no cache."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_cache": False}))
    return load_policy(directory)[0]


@pytest.mark.parametrize("load", [by_transformers, saved_without_cache])
def test_a_policy_out_of_a_judges_directory_reads_nothing_twice_when_it_writes(
    policy_dir: Path, tmp_path: Path, load: Callable[[Path], Any]
) -> None:
    save_judge(policy_dir, tmp_path / "judge")
    policy = load(tmp_path / "judge")
    read: list[int] = []
    policy.get_input_embeddings().register_forward_hook(lambda module, args, out: read.append(out.shape[1]))
    policy.generate(torch.tensor([[5, 6, 7, 8]]), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert read == [4, 1, 1]


class Fixed:
    """Gives the rewards that it is told, over and over."""

    __name__ = "fixed"

    def __init__(self, rewards: Sequence[float]) -> None:
        self.rewards = list(rewards)

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float]:
        return self.rewards[: len(completions)]


def trainer(policy_dir: Path, output: Path, rewards: Any, **settings: Any) -> Any:
    from trl import GRPOConfig

    from basereward.integrations.filtered_grpo import FilteredGRPOTrainer

    policy, tokenizer = load_policy(policy_dir)
    comparisons = [Comparison("what?", ["a cat", f"a dog {number}"], ranks=[0, 1]) for number in range(4)]
    given = {
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 4,
        "max_steps": 1,
        "scale_rewards": "batch",
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "learning_rate": 1e-2,
        "gradient_checkpointing": False,
    }
    return FilteredGRPOTrainer(
        policy,
        reward_funcs=rewards,
        args=GRPOConfig(str(output), **{**given, **settings}),
        train_dataset=judge_prompts(comparisons, tokenizer),
        processing_class=tokenizer,
    )


@pytest.mark.filterwarnings("ignore")
def test_trl_trains_a_judge_and_far_advantages_take_no_step(policy_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    # One of 16 rewards is 1: its advantage is (1 - 1/4) / 0.25 = 3, and with 2.5 as the limit it is left out,
    # which leaves the -1 of the three beside it.
    rewards = [0.0] * 15 + [1.0]
    found = trainer(policy_dir, tmp_path, Fixed(rewards))
    found.max_advantage = 2.5
    seen: list[torch.Tensor] = []
    compute = type(found).__mro__[1].compute_loss

    def watched(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(inputs["advantages"].clone())
        return compute(self, model, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(found).__mro__[1], "compute_loss", watched)
        before = [parameter.clone() for parameter in found.model.parameters()]
        found.train()
    assert found.num_filtered == 1
    [advantages] = seen
    assert sorted(advantages.tolist()) == pytest.approx([-1.0] * 3 + [0.0] * 13, abs=1e-2)
    assert any(not torch.equal(old, new) for old, new in zip(before, found.model.parameters(), strict=True))
    found.save_model(str(tmp_path / "policy"))
    save_judge(tmp_path / "policy", tmp_path / "judge")
    judged = RewardModel.load(tmp_path / "judge").paradigm
    assert judged.template.name == "reasoned"


@pytest.mark.filterwarnings("ignore")
def test_a_filter_that_could_never_filter_is_refused(policy_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    with pytest.raises(ConfigError) as caught:
        trainer(policy_dir, tmp_path, judge_grpo.format_reward, scale_rewards="group")
    assert str(caught.value) == (
        "no advantage is ever beyond 3 standard deviations with scale_rewards = 'group' and 4 generations; "
        "set scale_rewards = 'batch'"
    )


@pytest.mark.filterwarnings("ignore")
def test_ratios_are_clipped_before_the_trainers_own_clipping(policy_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    found = trainer(policy_dir, tmp_path, Fixed([0.0, 1.0] * 8), num_iterations=2, loss_type="bnpo")
    found.model.train()
    found.current_gradient_accumulation_steps = 1  # as within `train`
    inputs = found._prepare_inputs(next(iter(found.get_train_dataloader())))
    # As if each token were e^10 times as likely as when it was drawn, where that was bad.
    inputs["old_per_token_logps"] = inputs["old_per_token_logps"] - 10
    inputs["advantages"] = torch.full_like(inputs["advantages"], -1.0)
    loss = found.compute_loss(found.model, inputs)
    # The mean over tokens of -(1000 * -1); the unclipped ratio is 22026.
    assert loss.item() == pytest.approx(1000.0, rel=1e-4)
    loss.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in found.model.parameters())
    found.max_ratio = None
    assert found.compute_loss(found.model, inputs).item() == pytest.approx(22026.47, rel=1e-3)


@pytest.mark.parametrize("max_ratio", [1.0, float("inf"), float("nan"), -2.0])
@pytest.mark.filterwarnings("ignore")
def test_a_bound_that_is_none_is_refused(max_ratio: float, policy_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from basereward.integrations.filtered_grpo import FilteredGRPOTrainer

    made = trainer(policy_dir, tmp_path, Fixed([0.0]))
    with pytest.raises(ConfigError, match="max_ratio is a finite number > 1 or None"):
        FilteredGRPOTrainer(
            made.model,
            reward_funcs=Fixed([0.0]),
            args=made.args,
            train_dataset=made.train_dataset,
            processing_class=made.processing_class,
            max_ratio=max_ratio,
        )
