"""Rewards as OpenRLHF, verl, ms-swift and slime ask for them.

Where a stack's package is installed its own classes call the adapters; elsewhere stand-ins with the fields of
the versions that the adapters name.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy
import pytest
import tiny
import torch
from rounding import TINY_REWARD
from served import encoded
from transformers import AutoTokenizer

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.errors import ConfigError, DataError
from basereward.integrations import ms_swift, openrlhf, slime, verl
from basereward.integrations.rules import exact_match
from basereward.integrations.shaping import hybrid, length_penalized, sigmoid

IMAGE = tiny.image(56, 56, 1)
RENDERED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PAD = "<|vision_start|><|image_pad|><|vision_end|>"


class Lengths:
    """Gives each response its number of characters, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Comparison] = []

    def __call__(self, comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        self.asked += comparisons
        return [[float(len(text)) for text in each.responses] for each in comparisons]


class Refuses:
    """Scores nothing."""

    def __call__(self, comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        return [DataError("can't be read") for _ in comparisons]


@pytest.fixture(scope="module")
def model_dir(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "model"
    backbone = Component("qwen-vl", {"model": str(tiny_models["qwen2_5_vl"])})
    RewardModel.build(backbone=backbone).save(directory)
    return directory


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> list[float]:
    """Return what the model makes of two answers to a prompt with an image."""
    [rewards] = RewardModel.load(model_dir).score(
        [Comparison("<image>the cat", ["sits", "runs"], images=[IMAGE])]
    )
    return rewards


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Put a module, and the packages it lies in, where `import` finds them."""
    names = name.split(".")
    for number in range(1, len(names) + 1):
        monkeypatch.setitem(sys.modules, ".".join(names[:number]), ModuleType(".".join(names[:number])))
    for key, value in content.items():
        setattr(sys.modules[name], key, value)


# OpenRLHF


class SingleTurn:
    """The behaviour of OpenRLHF 0.11.2's SingleTurnAgentExecutor without a reward model."""

    async def execute(
        self,
        prompt: str,
        label: Any,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        asked = hf_tokenizer(text=prompt, add_special_tokens=False, return_tensors="pt")["input_ids"][
            0
        ].tolist()
        answer = (await llm_engine.generate(asked, sampling_params)).outputs[0].token_ids
        return {
            "prompt": prompt,
            "observation_tokens": asked + answer,
            "action_ranges": [(len(asked), len(asked) + len(answer))],
            "reward": None,
            "scores": None,
            "extra_logs": {},
        }


@pytest.fixture(params=["stand-in", "installed"])
def openrlhf_base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    if request.param == "installed":
        base = pytest.importorskip("openrlhf.utils.agent").SingleTurnAgentExecutor
        assert isinstance(base, type)
        return base
    stand_in(monkeypatch, "openrlhf.utils.agent", SingleTurnAgentExecutor=SingleTurn)
    return SingleTurn


def test_openrlhf_gets_tensors_of_rendered_and_of_plain_prompts() -> None:
    source = Lengths()
    prompts = [RENDERED.format("the cat"), "the dog"]
    queries = [f"{prompts[0]}sits<|im_end|>", "the dog runs"]
    found = openrlhf.reward_func(source)(queries, prompts, [None, None], more=1)
    assert found["rewards"].tolist() == found["scores"].tolist() == [4.0, 5.0]
    assert found["extra_logs"] == {"unscored": [0.0, 0.0], "raw_reward": [4.0, 5.0]}
    assert [(each.prompt[0].role, each.prompt[0].text, each.responses) for each in source.asked] == [
        ("user", "the cat", ("sits",)),
        ("user", "the dog", (" runs",)),
    ]


def test_openrlhfs_labels_are_there_for_shapes() -> None:
    func = openrlhf.reward_func(Lengths(), shapes=[hybrid(exact_match, column="label", otherwise=sigmoid())])
    found = func(["one: yes", "one: no"], ["one: "] * 2, ["yes", "yes"])
    # 1 where the rule holds; the sigmoid of 2 characters, 1 / (1 + e^-2), elsewhere
    assert found["rewards"].tolist() == pytest.approx([1.0, 0.880797], abs=1e-6)


def test_a_text_whose_image_did_not_come_is_not_scored() -> None:
    func = openrlhf.reward_func(Lengths())
    prompt = RENDERED.format(f"{PAD}the cat")
    with pytest.raises(DataError, match="the prompt has a place for an image, and no image came with it"):
        func([f"{prompt}sits"], [prompt], [None])
    with pytest.raises(DataError, match="the query doesn't begin with its prompt, as where images"):
        func([f"{prompt}sits".replace("<|image_pad|>", "<|image_pad|>" * 4)], [prompt], [None])


def test_openrlhfs_agent_sends_the_images(
    openrlhf_base: type, tiny_models: dict[str, Path], model_dir: Path, expected: list[float]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2_5_vl"])
    answer = tokenizer(" sits<|im_end|>", add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(answer).removesuffix("<|im_end|>")

    class LLM:
        async def generate(self, *_: Any, **__: Any) -> Any:
            completion = SimpleNamespace(token_ids=answer, text=text, finish_reason="stop", logprobs=None)
            return SimpleNamespace(outputs=[completion])

    executor_type = openrlhf.agent_executor(model_dir, shapes=[length_penalized(per_token=1, free_tokens=0)])
    assert issubclass(executor_type, openrlhf_base)
    prompt = RENDERED.format(f"{PAD}the cat")
    sampling = SimpleNamespace(max_tokens=8, logprobs=None)
    output = asyncio.run(
        executor_type().execute(prompt, "label", sampling, 4096, tokenizer, LLM(), images=[IMAGE])
    )
    [[raw]] = RewardModel.load(model_dir).score([Comparison("<image>the cat", [text], images=[IMAGE])])
    assert output["extra_logs"] == {"unscored": 0.0, "raw_reward": pytest.approx(raw, abs=TINY_REWARD)}
    assert output["reward"] == output["scores"] == pytest.approx(raw - len(answer), abs=TINY_REWARD)


# ms-swift


def rows(**more: Any) -> dict[str, Any]:
    """Return what ms-swift 4.6.0 calls a reward function with, of two answers to a prompt with an image."""
    asked = {"role": "user", "content": "<image>the cat"}
    said = [{"role": "assistant", "content": text} for text in ("sits", "runs")]
    return {
        "trainer_state": None,
        "messages": [[asked, each] for each in said],
        "images": [[{"bytes": base64.b64decode(encoded(IMAGE)), "path": None}]] * 2,
        "response_token_ids": [[1, 2], [[1], [2, 3]]],
        "finish_reason": ["stop", "stop"],
        **more,
    }


def test_ms_swift_hands_over_images(model_dir: Path, expected: list[float]) -> None:
    reward = ms_swift.orm(model_dir)(args=None)
    assert reward(["sits", "runs"], **rows()) == pytest.approx(expected, abs=TINY_REWARD)


def test_ms_swift_awaits_asynchronous_rewards() -> None:
    reward = ms_swift.async_orm(Lengths())(args=None)
    # How ms-swift tells them from others.
    assert inspect.iscoroutinefunction(type(reward).__call__)
    assert asyncio.run(reward(["sits", "runs"], **rows())) == [4.0, 4.0]


def test_ms_swifts_answers_of_several_turns_have_the_length_of_all() -> None:
    reward = ms_swift.orm(Lengths(), shapes=[length_penalized(per_token=1, free_tokens=0)])()
    assert reward(["sits", "runs"], **rows()) == [4.0 - 2, 4.0 - 3]


def test_what_ms_swift_can_leave_out_is_left_out() -> None:
    given = rows()
    given["messages"][0][-1]["content"] = " "
    assert ms_swift.orm(Lengths())()([" ", "runs"], **given) == [None, 4.0]


def test_ms_swifts_plugin_reads_rows() -> None:
    given = rows(solution=["sits", "sits"])
    inputs = [{name: column[number] for name, column in given.items() if column} for number in range(2)]
    shapes = [hybrid(exact_match, column="solution", otherwise=sigmoid())]
    plugin = ms_swift.rm_plugin(Lengths(), shapes=shapes)(model=None, template=None)
    # "runs" has 4 characters: 1 / (1 + e^-4)
    assert plugin(inputs, **given) == pytest.approx([1.0, 0.982014], abs=1e-6)


def test_ms_swifts_own_function_calls_it(model_dir: Path, expected: list[float]) -> None:
    algorithm = pytest.importorskip("swift.rl_core.grpo_algorithm")
    data = importlib.import_module("swift.rl_core.data")
    given = rows()
    samples = [
        data.GRPOSample.from_row({"messages": given["messages"][number], "images": given["images"][number]})
        for number in range(2)
    ]
    rewards = algorithm.compute_rewards_per_func(
        samples,
        [ms_swift.orm(model_dir)(), ms_swift.async_orm(model_dir)()],
        [None, None],
        torch.device("cpu"),
    )
    assert rewards.tolist() == [pytest.approx([each, each], abs=TINY_REWARD) for each in expected]


# slime


def sample(prompt: Any, response: str, **more: Any) -> Any:
    """Return a sample with the fields of slime's."""
    fields = {"label": None, "multimodal_inputs": None, "metadata": {}, "response_length": 1}
    return SimpleNamespace(prompt=prompt, response=response, **{**fields, **more})


def test_slimes_samples_are_scored_alone_or_as_a_group(model_dir: Path, expected: list[float]) -> None:
    shown = {"images": [IMAGE], "videos": None}
    prompt = RENDERED.format(f"{PAD}the cat")
    samples = [sample(prompt, f"{text}<|im_end|>", multimodal_inputs=shown) for text in ("sits", "runs")]
    rewards = slime.custom_rm(model_dir)
    assert asyncio.run(rewards(None, samples)) == pytest.approx(expected, abs=TINY_REWARD)
    assert asyncio.run(rewards(None, samples[1], evaluation=False)) == pytest.approx(
        expected[1], abs=TINY_REWARD
    )


def test_slimes_messages_labels_and_metadata_are_read() -> None:
    source = Lengths()
    asked = [{"role": "user", "content": "one"}]
    shapes = [hybrid(exact_match, column="label", otherwise=sigmoid(center=2.0))]
    rewards = slime.custom_rm(source, shapes=shapes)
    samples = [sample(asked, text, label="yes", metadata={"kind": 1}) for text in ("yes", "no")]
    # The sigmoid of 2 characters about a center of 2 is one half.
    assert asyncio.run(rewards(None, samples)) == [1.0, 0.5]
    assert [each.responses for each in source.asked] == [("yes", "no")]


def test_a_sample_that_can_not_be_scored_is_an_error_or_has_what_was_said() -> None:
    samples = [sample("one", "a"), sample("one", " ")]
    with pytest.raises(DataError, match=r"^sample 1 of 2 can't be scored; `unscored` says what such get$"):
        asyncio.run(slime.custom_rm(Lengths())(None, samples))
    assert asyncio.run(slime.custom_rm(Lengths(), unscored=-1.0)(None, samples)) == [1.0, -1.0]
    with pytest.raises(DataError, match="^can't be read$"):
        asyncio.run(slime.custom_rm(Refuses())(None, samples[0]))
    assert asyncio.run(slime.custom_rm(Refuses(), unscored=-1.0)(None, samples[0])) == -1.0


# verl


class ManagerBase:
    """The attributes of verl 0.9.1's RewardManagerBase."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any) -> None:
        self.config, self.tokenizer, self.compute_score = config, tokenizer, compute_score


class Item:
    """One sample of a DataProto, of which a slice is a DataProto again."""

    def __init__(self, batch: dict[str, Any], others: dict[str, Any]) -> None:
        self.batch = {name: tensor[0] for name, tensor in batch.items()}
        self.non_tensor_batch = {name: values[0] for name, values in others.items()}

    def __getitem__(self, place: Any) -> Item:
        return self


@pytest.fixture(params=["stand-in", "installed"])
def verl_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes data as verl's managers get them."""
    if request.param == "installed":
        pytest.importorskip("verl.experimental.reward_loop.reward_manager.base")
        return importlib.import_module("verl").DataProto.from_dict
    name = "verl.experimental.reward_loop.reward_manager.base"
    stand_in(monkeypatch, name, RewardManagerBase=ManagerBase)
    return lambda tensors, non_tensors: Item(tensors, non_tensors)


def test_verls_manager_sends_the_images(
    verl_data: Any, tiny_models: dict[str, Path], model_dir: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2_5_vl"])
    answer = tokenizer(" sits", add_special_tokens=False)["input_ids"]
    padded = [*answer, 0, 0]
    parts = [{"type": "image", "image": IMAGE}, {"type": "text", "text": "the cat"}]
    others: dict[str, list[Any]] = {
        "raw_prompt": [[{"role": "user", "content": parts}]],
        "data_source": ["cats"],
        "reward_model": [{"ground_truth": "sits"}],
        "extra_info": [{"index": 7}],
    }
    objects = {name: numpy.empty(1, dtype=object) for name in others}
    for name, [value] in others.items():
        objects[name][0] = value
    mask = [1, 1, *[1] * len(answer), 0, 0]
    data = verl_data(
        tensors={"responses": torch.tensor([padded]), "attention_mask": torch.tensor([mask])},
        non_tensors=objects,
    )
    text = tokenizer.decode(answer)
    [[raw]] = RewardModel.load(model_dir).score([Comparison("<image>the cat", [text], images=[IMAGE])])

    async def single(**options: Any) -> Any:
        manager = verl.reward_manager(model_dir, **options)(config=None, tokenizer=tokenizer)
        return await manager.run_single(data)

    found = asyncio.run(single())
    assert found["reward_score"] == pytest.approx(raw, abs=TINY_REWARD)
    assert found["reward_extra_info"] == {"raw_reward": pytest.approx(raw, abs=TINY_REWARD), "unscored": 0.0}
    ruled = asyncio.run(single(shapes=[hybrid(exact_match, column="ground_truth")]))
    assert ruled["reward_score"] == 1.0


def test_verls_function_reads_the_prompt_of_extra_info() -> None:
    source = Lengths()
    score = verl.compute_score(source)
    found = asyncio.run(score("cats", "sits", "sits", {"question": "the cat", "index": 7}))
    assert found == {"score": 4.0, "raw_reward": 4.0, "unscored": 0.0}
    assert source.asked[0].prompt[0].text == "the cat"
    with pytest.raises(ConfigError) as caught:
        asyncio.run(score("cats", "sits", "sits", {"index": 7}))
    assert str(caught.value) == (
        "extra_info has no 'question', only index; write the prompt there in the data set, name its place by "
        "`prompt_key`, or take a `reward_manager`"
    )


def test_verls_empty_answer_is_an_error_or_has_what_was_said() -> None:
    info = {"question": "the cat"}
    with pytest.raises(DataError, match="^the completion is empty, so it can't be scored; `unscored` says"):
        asyncio.run(verl.compute_score(Lengths())("cats", " ", "sits", info))
    found = asyncio.run(verl.compute_score(Lengths(), unscored=-1.0)("cats", " ", "sits", info))
    assert found == {"score": -1.0, "raw_reward": -1.0, "unscored": 1.0}
