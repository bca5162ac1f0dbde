"""Each architecture: transformers' own tokens, tensors and hidden states, and what the README says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm
import torch
from basereward_hf_vlm import architectures
from basereward_hf_vlm.backbone import HfVlm
from torch import Tensor
from transformers import AutoModelForImageTextToText

from basereward import Comparison
from basereward.media import Image
from basereward.testing import checks
from basereward.testing.material import image

README = Path(__file__).parents[1] / "README.md"
# Each of five layers sums 32 terms for five products, 48 for one, and the values of up to 200 tokens. A
# rounding is off by at most 2 ** -24, in either direction, and n of them by 8 sqrt(n) of that, in each of two
# computations.
BOUND = 2 * 8 * (5 * (5 * 32 + 48 + 200)) ** 0.5 * 2**-24  # 4e-5
CHECKED = (
    "ignores-its-batch",
    "ignores-padding",
    "passes-gradients-on",
    "saves-and-loads",
    "sees-or-refuses-images",
    "shares-prompts-exactly",
    "takes-part-in-reading-images",
)
CONTENTS: dict[str, list[Any]] = {
    "one image": [image(56, 56, 1), "what is it"],
    "several images": [image(84, 56, 2), "and", image(56, 112, 3), "alike"],
    "text only": ["what is it"],
}


@pytest.fixture(scope="module", params=tiny_vlm.MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each model type in turn."""
    return request.param


@pytest.fixture(scope="module")
def backbone(tiny_models: dict[str, Path], kind: str) -> HfVlm:
    """Return a tiny model of it, in evaluation."""
    return HfVlm(model=str(tiny_models[kind])).eval()


def asked(contents: list[Any], *responses: str) -> Comparison:
    """Return a comparison whose prompt has these images and texts."""
    parts = [part if isinstance(part, str) else Image(part) for part in contents]
    return Comparison([{"role": "user", "content": parts}], responses)


def official(backbone: HfVlm, contents: list[Any], response: str) -> dict[str, Tensor]:
    """Return what transformers' own processor makes of a prompt and a response."""
    images = [part for part in contents if not isinstance(part, str)]
    processor = backbone.processor._processor
    given: dict[str, Any] = {"images": [images]} if images else {}
    if backbone.model.config.model_type == "paligemma":
        if not images:
            pytest.skip("transformers' own processor of PaliGemma insists on an image")
        text = "<image>" * len(images) + "".join(part for part in contents if isinstance(part, str))
        found = processor(text=[text], suffix=[response], return_tensors="np", **given)
        return {name: torch.as_tensor(value) for name, value in found.items()}
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in contents
    ]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": response}]},
    ]
    text = backbone.tokenizer.apply_chat_template(messages, tokenize=False).removesuffix("\n")
    return dict(processor(text=[text], return_tensors="pt", **given))


@pytest.mark.parametrize("what", CONTENTS)
def test_tokens_and_hidden_states_are_those_of_transformers(
    backbone: HfVlm, tiny_models: dict[str, Path], kind: str, what: str
) -> None:
    contents = CONTENTS[what]
    wanted = official(backbone, contents, "a red cat")
    tree = backbone.encode(asked(contents, "a red cat"))
    assert tree.prompt + tree.responses[0] == wanted["input_ids"][0].tolist()
    whole = AutoModelForImageTextToText.from_pretrained(tiny_models[kind]).eval()
    wanted = {name: value for name, value in wanted.items() if name not in ("labels", "num_patches")}
    # Beside others and sharing with one of them, where it can.
    forest = backbone.forest([asked(["and"], "x"), asked(contents, "a dog", "a red cat")])
    with torch.no_grad():
        theirs = whole.model(**wanted).last_hidden_state[0, -1]
        ours = backbone(forest).flatten(0, 1)[forest.ends[2]]
    torch.testing.assert_close(ours, theirs, atol=BOUND, rtol=BOUND)


@pytest.mark.parametrize("name", CHECKED)
def test_promises(tiny_models: dict[str, Path], kind: str, name: str) -> None:
    found = checks("hf-vlm", options={"backbone/hf-vlm": {"model": str(tiny_models[kind])}})
    {check.id: check for check in found}[f"backbone/hf-vlm:{name}"]()


def test_the_readme_says_what_is_tested(tiny_models: dict[str, Path]) -> None:
    rows = re.findall(
        r"^\| [^|]+ \| `([a-z0-9_]+)` \| (yes|no)[^|]* \| yes \| yes \|$", README.read_text(), re.M
    )
    assert dict(rows) == {
        kind: "yes" if HfVlm(model=str(place)).shares else "no" for kind, place in tiny_models.items()
    }
    assert set(architectures.SHARING) == {kind for kind, shares in rows if shares == "yes"}


def test_sharing_changes_nothing(tiny_models: dict[str, Path]) -> None:
    rows = [asked(contents, "a cat", "a red dog", "x") for contents in CONTENTS.values()]
    for kind in sorted(architectures.SHARING):
        found = []
        for attention in ("forest", "dense", "plain"):
            backbone = HfVlm(model=str(tiny_models[kind]), attention=attention).eval()
            forest = backbone.forest(rows)
            assert len(forest.input_ids) == (9 if attention == "plain" else 3)
            with torch.no_grad():
                found.append(backbone(forest).flatten(0, 1)[forest.ends])
        for other in found[:2]:
            torch.testing.assert_close(other, found[2], atol=BOUND, rtol=BOUND, msg=kind)
