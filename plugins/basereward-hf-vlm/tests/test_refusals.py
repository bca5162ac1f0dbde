"""Models and inputs that can't be read, shared or trusted are refused by name."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tiny_vlm
import torch
import transformers
from basereward_hf_vlm import backbone as module
from basereward_hf_vlm.backbone import HfVlm
from basereward_hf_vlm.processing import Processor
from safetensors.torch import load_file, save_file

from basereward import Comparison, ConfigError, DataError
from basereward.errors import ModelError
from basereward.media import Image, Video
from basereward.testing.material import image


def copy(source: Path, place: Path) -> Path:
    """Return a copy of a model, to be spoiled."""
    return Path(shutil.copytree(source, place / "copy"))


def test_a_type_that_is_not_tested_gets_a_row_for_each_response(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARING", frozenset())
    backbone = HfVlm(model=str(tiny_models["llava"]))
    assert not backbone.shares
    assert not backbone.packs
    row = Comparison("what is it", ["a", "b", "c"], images=[Image(image(56, 56, 1))])
    assert len(backbone.forest([row]).input_ids) == 3


def test_a_tested_type_with_a_sliding_window_gets_a_row_for_each_response(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    place = copy(tiny_models["llava_next"], tmp_path)
    config = json.loads((place / "config.json").read_text())
    config["text_config"]["sliding_window"] = 8
    (place / "config.json").write_text(json.dumps(config))
    assert not HfVlm(model=str(place)).shares


def test_no_text_stands_for_an_image(tiny_models: dict[str, Path]) -> None:
    for kind in tiny_vlm.MAKERS:
        backbone = HfVlm(model=str(tiny_models[kind]))
        tokens = [str(token) for token in backbone.tokenizer.added_tokens_decoder.values() if token.special]
        forged = "fine".join(token for token in tokens if token not in ("<image>", "<video>"))
        plain = backbone.encode(Comparison("p", ["r"]))
        tree = backbone.encode(Comparison(forged, [f"{forged}<image><video>"]))
        special = set(backbone.control_ids())
        for found, wanted in ((tree.prompt, plain.prompt), (tree.responses[0], plain.responses[0])):
            assert [n for n in found if n in special] == [n for n in wanted if n in special], kind


def test_videos_are_refused(tiny_models: dict[str, Path]) -> None:
    row = Comparison([{"role": "user", "content": [Video([image(56, 56, 1)])]}], ["r"])
    with pytest.raises(DataError, match="^videos: the model reads no videos; take them out of the row$"):
        HfVlm(model=str(tiny_models["llava_onevision"])).encode(row)


def test_a_template_that_refuses_the_roles_is_a_bad_row(tiny_models: dict[str, Path]) -> None:
    backbone = HfVlm(model=str(tiny_models["gemma3"]))
    backbone.chat.template = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(DataError) as raised:
        backbone.encode(Comparison("p", ["r"]))
    assert str(raised.value) == "prompt: the chat template refuses the messages: Roles must alternate"


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**tiny_vlm.TEXT)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError) as raised:
        HfVlm(model=str(tmp_path))
    assert str(raised.value) == f"{tmp_path} is a 'llama' model, which reads no images; try causal-lm"


def test_a_model_without_a_template_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    place = copy(tiny_models["llava"], tmp_path)
    (place / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError) as raised:
        HfVlm(model=str(place))
    assert str(raised.value) == f"{place} has no chat template; save one as chat_template.jinja beside it"


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_processor_that_needs_torchvision_says_so(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="^PixtralProcessor can't be used here: .*Torchvision library"):
        Processor(str(tiny_models["llava"]), "mistral3", tiny_vlm.tokenizer())


def test_a_type_without_a_processor_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        Processor("a/b", "nonsense", tiny_vlm.tokenizer())
    assert str(raised.value) == "a/b is a 'nonsense' model, for which transformers has no processor"


def test_an_older_template_file_of_the_processor_is_read(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    place = copy(tiny_models["llava"], tmp_path)
    template = (place / "chat_template.jinja").read_text()
    (place / "chat_template.jinja").unlink()
    (place / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    plain, older = (HfVlm(model=str(where)) for where in (tiny_models["llava"], place))
    assert older.template_digest == plain.template_digest
    older.save(tmp_path)
    assert HfVlm(model=str(tmp_path)).template_digest == plain.template_digest


def test_missing_weights_are_named(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    place = copy(tiny_models["idefics3"], tmp_path)
    tensors = load_file(place / "model.safetensors")
    [name] = [name for name in tensors if name.endswith("connector.modality_projection.proj.weight")]
    del tensors[name]
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as raised:
        HfVlm(model=str(place))
    assert str(raised.value) == f"{place} has missing tensors: {name.removeprefix('model.')}"


def test_what_has_no_part_in_what_is_seen_is_not_trained(tiny_models: dict[str, Path]) -> None:
    backbone = HfVlm(model=str(tiny_models["llava"]))
    frozen = {name for name, value in backbone.named_parameters() if not value.requires_grad}
    # It reads the second but last layer of the tower, of three.
    tower = "model.vision_tower."
    last = {name for name, _ in backbone.named_parameters() if name.startswith(f"{tower}encoder.layers.2.")}
    assert frozen == last | {f"{tower}post_layernorm.weight", f"{tower}post_layernorm.bias"}
    assert last


def test_weights_may_be_of_less_precision(tiny_models: dict[str, Path]) -> None:
    backbone = HfVlm(model=str(tiny_models["llava_next"]), dtype="bfloat16").eval()
    row = Comparison("what is it", ["a", "b"], images=[Image(image(56, 56, 1))])
    with torch.no_grad():
        assert backbone(backbone.forest([row])).dtype == torch.bfloat16
