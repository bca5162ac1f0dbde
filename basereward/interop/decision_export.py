"""A judge of verdicts as a checkpoint that makes typed decisions: transformers' `pipeline("decision")`.

The layout is that of `transformers.decision.DecisionConfig` (5.23 and later): a language model as
transformers has it, `decision.json` with the labels of the options, whose next-token logits are read, and
`decision_template.jinja`, the chat template with the judge's question in it. Of a question `choice` with two
options, the answer's probabilities are those of the judge's verdict with the responses in this order.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from basereward.backbones.lm_head import LanguageHead
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.comparison import Comparison
from basereward.errors import ConfigError
from basereward.interop.exporting import Exported, foreign_files, mark_export, prefix_backbone
from basereward.media.image import Image
from basereward.paradigms.generative import Generative
from basereward.paradigms.judge_template import SLOT, SPEAKERS, JudgeTemplate
from basereward.scoring.reward_model import RewardModel
from basereward.storage.atomic import replace_directory

CONFIG_FILE, TEMPLATE_FILE = "decision.json", "decision_template.jinja"
"""The names that transformers reads."""

LABELS = ["1", "2"]

BEGINNING = """\
{%- if question.type != "choice" or question.options | length != 2 -%}
{{- raise_exception("this judge answers a choice between two responses") -}}
{%- endif -%}
{%- set asked = namespace(parts=[]) -%}
{%- macro add(value) -%}
{%- if value is string -%}
{%- set asked.parts = asked.parts + [{"type": "text", "text": value}] -%}
{%- elif value is mapping or value is number or value is none -%}
{%- set asked.parts = asked.parts + [{"type": "text", "text": value | tojson}] -%}
{%- else -%}
{%- set asked.parts = asked.parts + value -%}
{%- endif -%}
{%- endmacro -%}
{%- macro add_state() -%}
{%- if state is mapping and state.messages is defined -%}
{%- for turn in state.messages -%}
{%- if state.messages | length > 1 -%}{{- add(SPEAKERS[turn.role] ~ ": ") -}}{%- endif -%}
{{- add(turn.content) -}}
{%- if state.messages | length > 1 -%}{{- add("\\n") -}}{%- endif -%}
{%- endfor -%}
{%- else -%}
{{- add(state) -}}
{%- endif -%}
{%- endmacro -%}
{%- macro add_option(number) -%}
{%- set text = question.descriptions[number] -%}
{{- add(question.options[number] if text is none else text) -}}
{%- endmacro -%}
"""
"""Collects what is asked in parts, as a judge template has them."""

ENDING = """\
{%- set asked.text, asked.content, asked.has_images = "", [], false -%}
{%- for part in asked.parts -%}
{%- if part.type == "text" -%}
{%- set asked.text = asked.text ~ part.text -%}
{%- else -%}
{%- set asked.has_images = true -%}
{%- if asked.text -%}
{%- set asked.content = asked.content + [{"type": "text", "text": asked.text}] -%}{%- set asked.text = "" -%}
{%- endif -%}
{%- set asked.content = asked.content + [part] -%}
{%- endif -%}
{%- endfor -%}
{%- if asked.has_images -%}
{%- set asked.content = asked.content + [{"type": "text", "text": asked.text}] -%}
{%- endif -%}
{%- set messages = [{"role": "user", "content": asked.content if asked.has_images else asked.text}] -%}
"""
"""Makes the message of it, a text where there is no image, that the chat template then writes."""


def export_decisions(model: RewardModel, directory: str | Path) -> Exported:
    """Write a judge of verdicts such that transformers answers a choice between two responses by it.

    Args:
        model: Of the paradigm generative, with a template of one-token verdicts.
        directory: The directory to write; an earlier export is replaced.

    Raises:
        ConfigError: When the model is no such judge, transformers is older than 5.23, its tokens of the
            question would be others than the judge's, or the directory holds something else.
    """
    judge = model.paradigm
    if not isinstance(judge, Generative) or judge.template.answer != "verdict":
        raise ConfigError(
            f"decisions are made by a judge of verdicts of one token; the paradigm is "
            f"{model.components['paradigm']['name']!r}"
            + (f" with template {judge.template.name!r}" if isinstance(judge, Generative) else "")
        )
    backbone = model.backbone
    if not isinstance(backbone, TransformersBackbone):
        raise ConfigError(f"the backbone {model.components['backbone']['name']!r} is no transformers model")
    inner = backbone.model
    has_vision = "text_config" in inner.config.sub_configs
    suffix = "ForConditionalGeneration" if has_vision else "ForCausalLM"
    exported = Exported(type(inner).__name__.removesuffix("Model") + suffix, 0.0)
    with replace_directory(Path(directory), foreign_files=foreign_files) as place:
        backbone.save(place)
        if not has_vision:
            prefix_backbone(place, inner.base_model_prefix)
        assert isinstance(judge.head, LanguageHead)
        if judge.head.weight is not None:
            _add_language_head(place, judge.head.weight)
        path = place / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {"architectures": [exported.architecture]}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        settings = {"labels": {"choice": LABELS}, "temperature": {}}
        (place / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        template = decision_template(judge.template, backbone.chat.template)
        (place / TEMPLATE_FILE).write_text(template, encoding="utf-8")
        (place / "README.md").write_text(_card(exported.architecture, inner.config), encoding="utf-8")
        _check_tokens(judge, place, has_images=has_vision)
        mark_export(place, exported, "decision")
    return exported


def decision_template(judge: JudgeTemplate, chat_template: str) -> str:
    """Return the template of a decision: a judge's question about two responses as the chat has it."""
    lines = []
    for number, piece in enumerate(SLOT.split(judge.text)):
        if number % 2 == 0:
            lines.append(f"{{{{- add({json.dumps(piece)}) -}}}}\n" if piece else "")
        elif piece == "question":
            lines.append("{{- add_state() -}}\n")
        else:
            lines.append(f"{{{{- add_option({int(piece.removeprefix('response_')) - 1}) -}}}}\n")
    beginning = BEGINNING.replace("SPEAKERS", json.dumps(SPEAKERS))
    return beginning + "".join(lines) + ENDING + chat_template


def _add_language_head(place: Path, weight: torch.Tensor) -> None:
    """Write the head's weight into the model's file, or as a file of its own where the model is sharded."""
    name, tensor = "lm_head.weight", weight.detach().cpu().contiguous()
    index = place / "model.safetensors.index.json"
    if not index.is_file():
        path = place / "model.safetensors"
        save_file({**load_file(path), name: tensor}, path, metadata={"format": "pt"})
        return
    save_file({name: tensor}, place / "model-lm-head.safetensors", metadata={"format": "pt"})
    table = json.loads(index.read_text(encoding="utf-8"))
    table["weight_map"][name] = "model-lm-head.safetensors"
    index.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _check_tokens(judge: Generative, place: Path, *, has_images: bool) -> None:
    """Compare the tokens of a question, as transformers makes them of the export, with those of the judge.

    With an image, too, where the model reads some.

    Raises:
        ConfigError: When they differ, or transformers makes no decisions.
    """
    try:
        from transformers.decision import DecisionConfig
    except ImportError as error:
        raise ConfigError("decisions need transformers 5.23 or later: pip install -U transformers") from error
    from PIL import Image as PillowImage
    from transformers import AutoProcessor, AutoTokenizer

    # transformers has processors of images and videos only where torchvision is.
    has_images = has_images and find_spec("torchvision") is not None
    processor = (AutoProcessor if has_images else AutoTokenizer).from_pretrained(place)
    image = PillowImage.new("RGB", (112, 84), (200, 30, 30))
    responses = ["A red box.", " is it 12?\n"]
    for prompt, images in [("What is it?", []), ("What is it?", [Image(image)])][: 1 + has_images]:
        tree = judge.prepare(Comparison(prompt, responses, images=images)).content.tree
        question = {"type": "choice", "criteria": dict(zip("ab", responses, strict=True))}
        request = {"state": "%img%" * len(images) + prompt, "questions": {"q": question}}
        if images:
            request["assets"] = {"%img%": image}
        [(inputs, _)] = DecisionConfig.from_pretrained(place).prepare_inputs(request, processor)
        if inputs["input_ids"][0].tolist() != [*tree.prompt, *tree.responses[0]]:
            raise ConfigError(
                "transformers would make other tokens of the judge's question, and so other probabilities, "
                f"{'with an image' if images else 'of a text'}: its chat template or its tokenizer treats "
                "the question's parts otherwise"
            )


def _is_taken_for_another(config: Any) -> bool:
    """Tell whether transformers takes any model of this architecture for one with a decision head."""
    from transformers import MODEL_FOR_DECISION_MAPPING

    return type(config) in MODEL_FOR_DECISION_MAPPING


def _card(architecture: str, config: Any) -> str:
    load = '"."'
    lines = ["from transformers import pipeline  # 5.23 or later", ""]
    if _is_taken_for_another(config):
        # By a path alone, transformers would build a decision model of billions of weights first.
        lines[0] = f"from transformers import AutoTokenizer, {architecture}, pipeline  # 5.23 or later"
        lines += [f'model = {architecture}.from_pretrained(".")']
        load = 'model, tokenizer=AutoTokenizer.from_pretrained(".")'
    loading = "\n".join([*lines, f'decide = pipeline("decision", model={load})'])
    return f"""\
---
library_name: transformers
tags: [reward-model, basereward, decision]
---

A judge of two responses, exported by BaseReward as `{architecture}` with `{CONFIG_FILE}`: a question `choice`
with two options has the probability that each is the better response.

```python
{loading}
question = {{"type": "choice", "criteria": {{"a": "a cat", "b": "a dog"}}}}
print(decide({{"state": "What is it?", "questions": {{"better": question}}}}))
```

The order of the options matters to a judge: ask both orders, and take the mean of the log-odds.
"""
