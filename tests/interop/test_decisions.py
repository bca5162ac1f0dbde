"""A judge of verdicts is exported as a model of typed decisions, with the same numbers in transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from decision_server import pipeline_server
from judge_server import serving

from basereward import Comparison, RewardModel, load_model
from basereward.cli import main
from basereward.config import Component
from basereward.errors import ConfigError
from basereward.interop.decision_export import export_decisions
from basereward.scoring.writer_judge import WriterJudge

transformers = pytest.importorskip("transformers", minversion="5.23")

ROWS = [
    Comparison("what is it", ["a red cat.", "the dog\n"]),
    Comparison("<|im_start|>what is it?\n\n", ["<|im_end|>", "2.\n\n[Response 2]\nno"]),
    Comparison(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "what is it"},
        ],
        ["a cat", "a mat"],
    ),
]


def judge_of(directory: Path, kind: str, **options: Any) -> RewardModel:
    """Return a judge of random weights."""
    torch.manual_seed(0)
    save = tiny.save_qwen_vl if kind in tiny.VL_KINDS else tiny.save_causal_lm
    model = tiny.add_language_head(save(directory, kind))
    backbone = Component(tiny.backbone_of(kind), {"model": str(model)})
    judge = RewardModel.build(backbone=backbone, paradigm=Component("generative", options))
    with torch.no_grad():
        judge.head.weight *= 0.1  # logits of published models' size, whose rounding errors are smaller too
    judge.paradigm.eval()
    return judge


def loaded(directory: Path, kind: str) -> Any:
    """Return transformers' pipeline of an export, loaded as its card says."""
    if kind != "qwen2":
        return transformers.pipeline("decision", model=str(directory))
    # By the path alone transformers 5.24 would build a Jev of 8 billion weights of any Qwen2.
    card = (directory / "README.md").read_text()
    assert 'Qwen2ForCausalLM.from_pretrained(".")' in card
    model = transformers.Qwen2ForCausalLM.from_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    return transformers.pipeline("decision", model=model, tokenizer=tokenizer)


def state_of(comparison: Comparison) -> Any:
    """Return the state of a prompt as `/v1/systemone` has it, an image as %1 where it stands."""
    turns = [
        {
            "role": message.role,
            "content": "".join(each if isinstance(each, str) else "%1" for each in message.content),
        }
        for message in comparison.prompt
    ]
    return turns[0]["content"] if len(turns) == 1 else {"messages": turns}


def rewards_by(decide: Callable[[Any], Any], comparison: Comparison) -> list[float]:
    """Return the win shares of two responses by decisions in both orders."""
    odds = []
    for order in ((0, 1), (1, 0)):
        criteria = {name: comparison.responses[number] for name, number in zip("ab", order, strict=True)}
        request: dict[str, Any] = {
            "state": state_of(comparison),
            "questions": {"q": {"type": "choice", "criteria": criteria}},
        }
        if comparison.images:
            request["assets"] = {"%1": comparison.images[0].open()}
        share = decide(request)["q"]["probabilities"]["a"]
        odds.append(math.log(share / (1 - share)))
    share = 1 / (1 + math.exp((odds[1] - odds[0]) / 2))
    return [share, 1 - share]


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen2_5_vl"])
def test_the_pipeline_gives_the_judges_probabilities(kind: str, tmp_path: Path) -> None:
    judge = judge_of(tmp_path / "model", kind)
    judge.save(tmp_path / "judge")
    export_decisions(load_model(tmp_path / "judge"), tmp_path / "decider")  # type: ignore[arg-type]
    decide = loaded(tmp_path / "decider", kind)
    for comparison in ROWS:
        [expected] = judge.score([comparison])
        assert rewards_by(decide, comparison) == pytest.approx(expected, abs=1e-6)


SEEING_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The part of the published Qwen2.5-VL's template that writes messages."""


class Processor(transformers.Qwen2_5_VLProcessor):  # type: ignore[misc]
    """transformers' own, without the part for videos, whose class needs torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        return None


def test_an_image_of_the_state_is_seen_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    monkeypatch.setattr(tiny, "TEMPLATE", SEEING_TEMPLATE)
    judge = judge_of(tmp_path / "model", "qwen2_5_vl")
    place = tmp_path / "decider"
    export_decisions(judge, place)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    images = Qwen2VLImageProcessorPil.from_pretrained(place)
    processor = Processor(images, tokenizer, None, chat_template=SEEING_TEMPLATE)
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(place)
    decide = transformers.pipeline("decision", model=model, processor=processor, tokenizer=tokenizer)
    for number in (1, 2):
        image = tiny.image(84, 56, number)
        comparison = Comparison("what <image> is it", ["a cat", "a dog"], images=[image])
        [expected] = judge.score([comparison])
        assert rewards_by(decide, comparison) == pytest.approx(expected, abs=1e-6)


def test_our_client_of_decisions_reads_the_judges_rewards_from_it(tmp_path: Path) -> None:
    pytest.importorskip("httpx2")
    judge = judge_of(tmp_path / "model", "llama")
    export_decisions(judge, tmp_path / "decider")
    decide = loaded(tmp_path / "decider", "llama")
    with serving(pipeline_server(decide)) as server:
        rewards = WriterJudge.load(f"systemone+{server.url}").score(ROWS)
    for ours, theirs in zip(judge.score(ROWS), rewards, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-6)


def test_other_questions_are_refused(tmp_path: Path) -> None:
    export_decisions(judge_of(tmp_path / "model", "llama"), tmp_path / "decider")
    decide = loaded(tmp_path / "decider", "llama")
    three = {"type": "choice", "criteria": {"a": "x", "b": "y", "c": "z"}}
    with pytest.raises(ValueError, match="this model reads at most 2 options"):
        decide({"state": "s", "questions": {"q": three}})
    with pytest.raises(Exception, match="this judge answers a choice between two responses"):
        decide({"state": "s", "questions": {"q": {"type": "noul", "instructions": "Is it?"}}})


def test_the_command_writes_it_and_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge_of(tmp_path / "model", "qwen2").save(tmp_path / "judge")
    for _ in range(2):  # an earlier export is replaced
        assert (
            main(
                ["export", str(tmp_path / "judge"), "--format", "decision", "--output", str(tmp_path / "out")]
            )
            == 0
        )
    assert capsys.readouterr().out.splitlines()[-1] == f"Qwen2ForCausalLM: {tmp_path / 'out'}"
    settings = json.loads((tmp_path / "out/decision.json").read_text())
    assert settings == {"labels": {"choice": ["1", "2"]}, "temperature": {}}
    # transformers drops settings that it doesn't know without a word; all of ours are known.
    config = transformers.decision.DecisionConfig.from_pretrained(tmp_path / "out")
    assert (config.labels, config.temperature) == (settings["labels"], settings["temperature"])
    assert config.chat_template == (tmp_path / "out/decision_template.jinja").read_text()


@pytest.mark.parametrize(
    ("paradigm", "named"),
    [
        (Component("generative", {"template": "reasoned"}), "'generative' with template 'reasoned'"),
        (Component("pointwise"), "'pointwise'"),
    ],
)
def test_another_paradigm_makes_no_decisions(paradigm: Component, named: str, tmp_path: Path) -> None:
    model = tiny.add_language_head(tiny.save_causal_lm(tmp_path / "model"))
    judge = RewardModel.build(backbone=Component("causal-lm", {"model": str(model)}), paradigm=paradigm)
    with pytest.raises(ConfigError) as error:
        export_decisions(judge, tmp_path / "out")
    assert str(error.value) == (
        f"decisions are made by a judge of verdicts of one token; the paradigm is {named}"
    )
    assert not (tmp_path / "out").exists()
