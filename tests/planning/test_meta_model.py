"""Models without weights: their sizes are those of the models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from basereward import RewardModel
from basereward.config import Component, RunConfig, load_run
from basereward.costs.architecture import Architecture
from basereward.errors import ConfigError
from basereward.planning.meta_model import meta_model, published
from basereward.plugins import PluginManager
from basereward.training.resolve import resolve_run

# As the repositories' safetensors indexes have them. Where embeddings and language-model head are one tensor,
# the files hold it once; where they are two, the head's is left out here, as it is never loaded.
PUBLISHED = {
    "Qwen/Qwen2-VL-2B-Instruct": (2_208_985_600, True),
    "Qwen/Qwen2-VL-7B-Instruct": (8_291_375_616, False),
    "Qwen/Qwen2-VL-72B-Instruct": (73_405_560_320, False),
    "Qwen/Qwen2.5-VL-3B-Instruct": (3_754_622_976, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": (8_292_166_656, False),
    "Qwen/Qwen2.5-VL-32B-Instruct": (33_452_718_336, False),
    "Qwen/Qwen2.5-VL-72B-Instruct": (73_410_777_344, False),
    "Qwen/Qwen3-VL-2B-Instruct": (2_127_532_032, True),
    "Qwen/Qwen3-VL-4B-Instruct": (4_437_815_808, True),
    "Qwen/Qwen3-VL-8B-Instruct": (8_767_123_696, False),
    "Qwen/Qwen3-VL-32B-Instruct": (33_357_390_064, False),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": (31_070_754_032, False),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (134_515_008, True),
}


ROUNDED = {"1B": 0.938, "2B": 2.09, "8B": 7.94, "14B": 15.1, "38B": 38.4, "78B": 78.4}
"""Billions of parameters of InternVL3, language-model head included, as the hub prints them: three digits."""


@pytest.mark.parametrize("size", ROUNDED)
def test_internvl_has_the_parameters_that_were_published(tmp_path: Path, size: str) -> None:
    name = f"OpenGVLab/InternVL3-{size}-hf"
    model, source = meta_model(run_of(tmp_path, "internvl", name), PluginManager())
    assert source == "as published"
    counts = sizes(model)
    language = model.backbone.parts()["language"]
    embedding = next(item for item in language.parameters() if 151_674 in item.shape)
    # The head that is never loaded is as large as the embedding, and stands beside it in the files.
    total = sum(counts.values()) - counts["head"] + embedding.numel()
    assert float(f"{total / 1e9:.3g}") == ROUNDED[size]


def run_of(tmp_path: Path, backbone: str, model: str, head: str = "") -> RunConfig:
    (tmp_path / "run.toml").write_text(
        f"""
        output = "run"
        backbone = {{ name = "{backbone}", model = "{model}" }}
        head = {{ name = "mlp"{head} }}
        data.train = [{{ name = "basereward", path = "rows.jsonl" }}]
        """
    )
    return resolve_run(load_run(tmp_path / "run.toml"), PluginManager())


def sizes(model: RewardModel) -> dict[str, int]:
    return {name: sum(item.numel() for item in items) for name, items in model.part_parameters().items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_parameters_that_were_published(tmp_path: Path, name: str) -> None:
    backbone = "causal-lm" if "VL" not in name else "qwen-vl"
    model, source = meta_model(run_of(tmp_path, backbone, name), PluginManager())
    assert source == "as published"
    assert all(item.is_meta for item in model.paradigm.parameters())
    number, is_tied = PUBLISHED[name]
    text = model.backbone.model.config.get_text_config()
    found = sizes(model)
    assert found.pop("head") == text.hidden_size**2 + 2 * text.hidden_size + 1
    assert sum(found.values()) + (0 if is_tied else text.vocab_size * text.hidden_size) == number


@pytest.mark.parametrize("paradigm", ["critic", "generative"])
def test_paradigms_that_write_text_are_refused(tmp_path: Path, paradigm: str) -> None:
    run = run_of(tmp_path, "causal-lm", "HuggingFaceTB/SmolLM2-135M-Instruct")
    with pytest.raises(ConfigError, match=r"all paradigms but scalar\) can't be planned"):
        meta_model(replace(run, paradigm=Component(paradigm)), PluginManager())


def test_every_published_model_is_checked() -> None:
    checked = [*PUBLISHED, *(f"OpenGVLab/InternVL3-{size}-hf" for size in ROUNDED)]
    assert {json.dumps(facts) for facts in published().values()} == {
        json.dumps(published()[name]) for name in checked
    }


@pytest.mark.parametrize("kind", [*tiny.LM_KINDS, *tiny.VL_KINDS, *tiny.INTERNVL_KINDS])
def test_a_meta_model_has_the_parts_of_the_model(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    run = run_of(tmp_path, tiny.backbone_of(kind), str(tiny_models[kind]))
    bare, source = meta_model(run, PluginManager())
    assert source == f"{tiny_models[kind]}/config.json"
    model = RewardModel.build(backbone=run.backbone, head=run.head, plugins=PluginManager())
    assert sizes(bare) == sizes(model)
    assert Architecture.of(bare) == Architecture.of(model)
    assert len(bare.backbone.blocks()) == len(model.backbone.blocks())
    assert (bare.backbone.dim, bare.backbone.shares) == (model.backbone.dim, model.backbone.shares)


def test_layers_that_a_head_does_not_read_are_left_out(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = run_of(tmp_path, "causal-lm", str(tiny_models["llama"]), ", layer = 2")
    architecture = Architecture.of(meta_model(run, PluginManager())[0])
    assert architecture is not None
    assert architecture.language.number == 2


def test_a_config_file_says_what_is_not_known(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = run_of(tmp_path, "causal-lm", "someone/something")
    with pytest.raises(ConfigError) as raised:
        meta_model(run, PluginManager())
    assert str(raised.value) == (
        "the sizes of model 'someone/something' aren't known here; give its config.json by --config FILE. "
        f"Known without it: {', '.join(sorted(published()))}"
    )
    file = tiny_models["llama"] / "config.json"
    model, source = meta_model(run, PluginManager(), file)
    assert source == str(file)
    assert sizes(model)["language"] == 512 * 32 + 3 * (7680 + 2 * 32) + 32  # embeddings, layers, norms

    with pytest.raises(ConfigError, match="--config nowhere: there is no such file; give a model's config"):
        meta_model(run, PluginManager(), Path("nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="config.json: is no configuration of transformers: "):
        meta_model(run, PluginManager(), tmp_path / "config.json")


def test_a_backbone_of_another_make_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = run_of(tmp_path, "qwen-vl", str(tiny_models["llama"]))
    with pytest.raises(ConfigError) as raised:
        meta_model(run, PluginManager())
    assert str(raised.value) == (
        "what backbone 'qwen-vl' on a 'llama' model costs isn't known; known are 'causal-lm' on decoders, "
        "'qwen-vl' on Qwen-VL models and 'internvl' on InternVL's"
    )
