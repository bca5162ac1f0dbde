"""Reward models: the same rewards after saving and loading, and no damaged directory gets loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD, within
from safetensors.torch import load_file, save_file
from tiny import LM_KINDS, VL_KINDS

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.errors import ConfigError, DataError, ModelError
from basereward.plugins import PluginManager

PLUGINS = PluginManager()


def build(directory: Path, head: Component | None = None, **options: Any) -> RewardModel:
    """Build a model on a tiny backbone."""
    name = "qwen-vl" if directory.name in VL_KINDS else "causal-lm"
    torch.manual_seed(3)
    return RewardModel.build(
        backbone=Component(name, {"model": str(directory), **options}), head=head, plugins=PLUGINS
    )


def rewrite_head(directory: Path, change: Any) -> None:
    """Change the head's tensors and sign the file again, as a careless tool would."""
    path = directory / "head.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    sign(directory)


def sign(directory: Path) -> None:
    """Make the digests in `reward_config.json` fit the files."""
    from basereward.storage.atomic import file_digest

    config = json.loads((directory / "reward_config.json").read_text())
    config["files"] = {
        name: file_digest(directory / name) for name in config["files"] if (directory / name).exists()
    }
    (directory / "reward_config.json").write_text(json.dumps(config))


@pytest.fixture
def saved(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """Return the directory of a saved tiny model."""
    build(tiny_models["llama"]).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", [*VL_KINDS, *LM_KINDS])
def test_saved_and_loaded_gives_the_same_rewards_bit_for_bit(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    model = build(tiny_models[kind], Component("mlp", {"num_layers": 3, "pooling": "mean"}))
    rows = tiny.comparisons(images=kind in VL_KINDS)
    expected = model.score(rows)
    model.save(tmp_path / "model", note="kept")
    again = RewardModel.load(tmp_path / "model", plugins=PLUGINS)
    assert again.score(rows) == expected
    assert again.record["note"] == "kept"
    assert again.record["base_model"] == str(tiny_models[kind])
    again.save(tmp_path / "again")
    assert RewardModel.load(tmp_path / "again", plugins=PLUGINS).score(rows) == expected


def test_the_directory_says_everything_about_itself(saved: Path) -> None:
    config = json.loads((saved / "reward_config.json").read_text())
    assert config["schema_version"] == 1
    assert config["paradigm"] == "scalar"
    assert config["components"]["head"] == {
        "name": "mlp",
        "plugin": "basereward",
        "version": config["basereward_version"],
        "distribution": "basereward",
        "options": {
            "num_layers": 2,
            "activation": "silu",
            "width": None,
            "dropout": 0.0,
            "pooling": "last",
            "layer": None,
        },
    }
    assert len(config["template_digest"]) == 64
    on_disk = {path.name for path in saved.iterdir()} - {"reward_config.json", "README.md"}
    assert set(config["files"]) == on_disk
    assert not [name for name in on_disk if name.endswith((".py", ".bin", ".pt"))]


def test_transformers_reads_the_backbone(saved: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, report = AutoModel.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    assert AutoTokenizer.from_pretrained(saved).chat_template == tiny.TEMPLATE


@pytest.mark.parametrize("kind", ["llama", "qwen2_5_vl"])
def test_a_middle_layer_is_the_hidden_state_of_that_layer(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    rows = tiny.comparisons(images=kind in VL_KINDS)
    whole = build(tiny_models[kind])
    forest = whole.backbone.forest(rows, shared=False)
    whole.backbone.decoder.use("plain")
    states: list[torch.Tensor] = []
    whole.backbone.decoder.decoder.layers[1].register_forward_hook(
        lambda module, inputs, output: states.append(output)
    )
    with torch.no_grad():
        whole.backbone(forest)
    expected = states[0].flatten(0, 1)[forest.ends]
    cut = build(tiny_models[kind], Component("linear", {"layer": 2}))
    assert len(cut.backbone.decoder.decoder.layers) == 2
    with torch.no_grad():
        shared = cut.backbone.forest(rows)
        found = cut.backbone(shared).flatten(0, 1)[shared.ends]
    torch.testing.assert_close(found, expected, **within(TINY_REWARD))
    cut.save(tmp_path / "model")
    assert RewardModel.load(tmp_path / "model", plugins=PLUGINS).score(rows) == cut.score(rows)


def test_a_layer_that_is_not_there_is_an_error(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="^head.layer is 4; the backbone has layers 1 to 3$"):
        build(tiny_models["llama"], Component("linear", {"layer": 4}))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_rewards_do_not_depend_on_the_batch_size(tiny_models: dict[str, Path], batch_size: int) -> None:
    model = build(tiny_models["qwen2_5_vl"])
    rows = tiny.comparisons()
    alone = [model.score([row])[0] for row in rows]
    for expected, found in zip(alone, model.score(rows, batch_size=batch_size), strict=True):
        assert found == pytest.approx(expected, abs=TINY_REWARD)


def test_scoring_needs_no_ranks_and_takes_one_response(tiny_models: dict[str, Path]) -> None:
    model = build(tiny_models["llama"])
    assert len(model.score([Comparison("what is it", ["a cat"])])[0]) == 1


def test_scoring_switches_dropout_off_and_training_on_again(tiny_models: dict[str, Path]) -> None:
    model = build(tiny_models["llama"], Component("mlp", {"dropout": 0.5}))
    model.paradigm.train()
    rows = tiny.comparisons(images=False)
    assert model.score(rows) == model.score(rows)
    assert model.paradigm.training


def test_a_bad_row_does_not_touch_its_neighbours(tiny_models: dict[str, Path]) -> None:
    model = build(tiny_models["qwen2_5_vl"])
    good = tiny.comparisons()
    bad = Comparison("what", ["a", "b"], images=[b"no image"], id="bad")
    results = dict(
        enumerate(result for _, result in model.score_stream([good[1], bad, good[2]], batch_size=3))
    )
    assert isinstance(results[1], DataError)
    assert results[0] == pytest.approx(model.score([good[1]])[0], abs=TINY_REWARD)
    assert results[2] == pytest.approx(model.score([good[2]])[0], abs=TINY_REWARD)
    with pytest.raises(DataError, match="^comparison bad: images: 8 bytes is no image"):
        model.score([bad])


def test_over_long_responses_are_refused_or_cut_on_request(tiny_models: dict[str, Path]) -> None:
    row = Comparison("what is it", ["a cat", "the blue house runs on and on under a mat " * 5])
    length = len(build(tiny_models["llama"]).backbone.encode(row).prompt)
    with pytest.raises(DataError) as error:
        build(tiny_models["llama"], max_tokens=length + 8).score([row])
    assert "max_tokens is" in str(error.value)
    assert 'on_long = "truncate" cuts the response' in str(error.value)
    model = build(tiny_models["llama"], max_tokens=length + 8, on_long="truncate")
    tree = model.backbone.encode(row)
    assert [len(response) for response in tree.responses][1] == 8
    assert tree.responses[1][-1] == tree.responses[0][-1]
    assert model.num_truncated == 1


def test_parameters_are_sorted_into_parts(tiny_models: dict[str, Path]) -> None:
    model = build(tiny_models["qwen2_5_vl"])
    parts = model.part_parameters()
    assert list(parts) == ["vision", "projector", "language", "head"]
    counted = [id(parameter) for parameters in parts.values() for parameter in parameters]
    assert sorted(counted) == sorted(id(parameter) for parameter in model.paradigm.parameters())


def test_a_training_may_start_from_a_saved_model(saved: Path, tiny_models: dict[str, Path]) -> None:
    comparisons = tiny.comparisons(images=False)
    expected = RewardModel.load(saved).score(comparisons)
    trunk = Component("causal-lm", {"model": "not/read", "max_tokens": 4000})
    found = RewardModel.warm_start(saved, backbone=trunk, loss=Component("hinge"), plugins=PLUGINS)
    assert found.score(comparisons) == expected
    assert found.record == {"base_model": str(tiny_models["llama"]), "started_from": str(saved)}
    assert found.components["loss"]["name"] == "hinge"


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (
            {"backbone": Component("qwen-vl", {"model": "x/y"})},
            "the backbone of {saved} is 'causal-lm', not 'qwen-vl'; a training starts from a model with the "
            "same backbone",
        ),
        (
            {"head": Component("linear")},
            "the head of {saved} is 'mlp', not 'linear'; a training starts from a model with the same head",
        ),
        (
            {"head": Component("mlp", {"pooling": "mean"})},
            "the head of {saved} has pooling = 'last', not 'mean'; a training starts from a model with the "
            "same head",
        ),
    ],
)
def test_a_training_does_not_start_from_another_kind_of_model(
    saved: Path, components: dict[str, Component], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        RewardModel.warm_start(
            saved, **{"backbone": Component("causal-lm", {"model": "x/y"}), **components}, plugins=PLUGINS
        )
    assert str(caught.value) == message.format(saved=saved)


def test_a_missing_head_tensor_is_refused(saved: Path) -> None:
    rewrite_head(saved, lambda tensors: tensors.pop("head.layers.0.weight"))
    with pytest.raises(ModelError, match="head.safetensors lacks the tensor head.layers.0.weight$"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_an_extra_head_tensor_is_refused(saved: Path) -> None:
    rewrite_head(saved, lambda tensors: tensors.update(extra=torch.ones(1)))
    with pytest.raises(ModelError, match="head.safetensors has the unexpected tensor extra$"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_a_misshapen_head_tensor_is_refused(saved: Path) -> None:
    rewrite_head(saved, lambda tensors: tensors.update({"head.layers.1.weight": torch.ones(1, 7)}))
    with pytest.raises(ModelError, match=r"head.layers.1.weight has the shape \[1, 7\], not \[1, 32\]$"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_a_head_with_nan_is_refused(saved: Path) -> None:
    rewrite_head(saved, lambda tensors: tensors["head.layers.0.bias"].fill_(float("nan")))
    with pytest.raises(ModelError, match="head.layers.0.bias holds values that are not finite$"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_a_missing_backbone_tensor_is_refused(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    name = next(name for name in tensors if "q_proj" in name)
    del tensors[name]
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    sign(saved)
    with pytest.raises(ModelError, match=f"has missing tensors: {name}$"):
        RewardModel.load(saved, plugins=PLUGINS)


@pytest.mark.parametrize("name", ["head.safetensors", "model.safetensors", "config.json", "tokenizer.json"])
def test_an_altered_or_missing_file_is_named(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match=f"{name} is not the file that was saved: its SHA-256 differs$"):
        RewardModel.load(saved, plugins=PLUGINS)
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"lacks the file {name}$"):
        RewardModel.load(saved, plugins=PLUGINS)


@pytest.mark.parametrize("name", ["modeling.py", "pytorch_model.bin", "head.pt"])
def test_files_that_run_code_are_refused(saved: Path, name: str) -> None:
    (saved / name).write_bytes(b"")
    with pytest.raises(ModelError, match="could run code when loaded"):
        RewardModel.load(saved, plugins=PLUGINS)


@pytest.mark.parametrize("name", ["extra.safetensors", "adapter_config.json", "chat_template_2.jinja"])
def test_a_file_that_was_not_saved_is_refused(saved: Path, name: str) -> None:
    (saved / name).write_text("{}")
    with pytest.raises(ModelError, match=f"{name} is not among the model's files; remove it$"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_notes_for_people_may_lie_beside_the_model(saved: Path) -> None:
    for name in ("README.md", "LICENSE", ".gitattributes"):
        (saved / name).write_text("a note")
    assert RewardModel.load(saved, plugins=PLUGINS).score(tiny.comparisons(images=False))


def test_a_directory_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model directory: it has no reward_config.json$"):
        RewardModel.load(tmp_path, plugins=PLUGINS)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "components": {}}']
)
def test_a_damaged_config_is_refused(saved: Path, text: str) -> None:
    (saved / "reward_config.json").write_text(text)
    with pytest.raises(ModelError, match="reward_config.json is damaged"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_another_schema_version_is_refused(saved: Path) -> None:
    config = json.loads((saved / "reward_config.json").read_text())
    (saved / "reward_config.json").write_text(json.dumps({**config, "schema_version": 9}))
    with pytest.raises(ModelError, match="has schema version 9; this BaseReward reads version 1$"):
        RewardModel.load(saved, plugins=PLUGINS)


def test_a_missing_plugin_is_named_with_what_to_install(saved: Path) -> None:
    config = json.loads((saved / "reward_config.json").read_text())
    config["components"]["head"] |= {
        "name": "gated",
        "plugin": "multi-objective",
        "version": "0.3.1",
        "distribution": "basereward-multi-objective",
    }
    (saved / "reward_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        RewardModel.load(saved, plugins=PLUGINS)
    assert str(error.value) == (
        "the model's head is 'gated' of plugin 'multi-objective' 0.3.1, which is not there; "
        "install basereward-multi-objective==0.3.1"
    )


def test_a_name_that_another_plugin_takes_later_stays_the_saved_one(saved: Path) -> None:
    import types

    from basereward import hookimpl

    class Other(torch.nn.Module):
        """Another head."""

    rival = types.ModuleType("rival")
    rival.basereward_heads = hookimpl(specname="basereward_heads")(lambda: {"mlp": Other})
    rows = tiny.comparisons(images=False)
    expected = RewardModel.load(saved, plugins=PLUGINS).score(rows)
    assert RewardModel.load(saved, plugins=PluginManager([rival])).score(rows) == expected


def test_a_failed_save_leaves_the_old_directory(
    saved: Path, tiny_models: dict[str, Path], monkeypatch: Any
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    model = build(tiny_models["qwen2"])

    def fail(directory: Path) -> None:
        (directory / "half").write_text("written")
        raise OSError("disk full")

    monkeypatch.setattr(model.backbone, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_saving_replaces_an_older_model(saved: Path, tiny_models: dict[str, Path]) -> None:
    model = build(tiny_models["qwen2"])
    model.save(saved)
    rows = tiny.comparisons(images=False)
    assert RewardModel.load(saved, plugins=PLUGINS).score(rows) == model.score(rows)


def test_damaged_weights_of_a_backbone_are_named(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_models["llama"], broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=f"^can't load {weights}: "):
        RewardModel.build(backbone=Component("causal-lm", {"model": str(broken)}), plugins=PLUGINS)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "model './nowhere' is no directory and no hub id of the form owner/name"),
        ("plain", "model 'plain' is no directory and no hub id of the form owner/name"),
    ],
)
def test_a_backbone_that_is_not_there_says_so(model: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        RewardModel.build(backbone=Component("causal-lm", {"model": model}), plugins=PLUGINS)
    assert str(error.value) == message


def test_the_wrong_kind_of_backbone_says_so(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="is a 'llama' model; qwen-vl reads qwen2_vl, qwen2_5_vl"):
        RewardModel.build(
            backbone=Component("qwen-vl", {"model": str(tiny_models["llama"])}), plugins=PLUGINS
        )


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_comparisons_of_one_prompt_are_joined_whatever_tokens_its_end_has(
    pooling: str, tmp_path: Path
) -> None:
    # The tokenizer has a token for the template's line break and those that a response begins with.
    tiny.save_causal_lm(tmp_path)
    words = tiny.tokenizer()
    words.add_tokens(["\n\n\n"])
    words.save_pretrained(tmp_path)
    model = RewardModel.build(
        backbone=Component("causal-lm", {"model": str(tmp_path)}),
        head=Component("mlp", {"pooling": pooling}),
    )
    model.paradigm.eval()
    rows = [Comparison("what is it", texts) for texts in (["\n\na cat"], ["a dog", "a hat"])]
    prepared: Any = model.prepare_batch(rows)
    lengths = [len(item.content.tree.prompt) for item in prepared]
    assert lengths[0] == lengths[1] - 1
    [joined] = model.score_prepared([model.join(prepared)])
    alone = [reward for rewards in model.score(rows) for reward in rewards]
    torch.testing.assert_close(torch.tensor(joined), torch.tensor(alone), **within(TINY_REWARD))
    [together] = model.score([Comparison("what is it", [text for row in rows for text in row.responses])])
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), **within(TINY_REWARD))
    trees = [item.content.tree for item in [model.join(prepared), *prepared]]
    together_lengths, *lengths_alone = [model.backbone.pack([tree]).lengths.tolist() for tree in trees]
    assert together_lengths == [length for one in lengths_alone for length in one]
