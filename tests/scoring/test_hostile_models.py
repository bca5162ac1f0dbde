"""Broken and hostile model directories: each is an error of ours that names the file, wherever it is read."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from basereward import RewardModel, load_model
from basereward.backbones.untrusted_settings import SETTINGS, check_settings
from basereward.cli import main
from basereward.config import Component
from basereward.errors import ModelError
from basereward.scoring.ensemble import Ensemble
from basereward.storage.atomic import file_digest
from basereward.storage.reading import is_regular

# The exception that stops a template may first arrive in a callback of the garbage collector and be printed.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

BRACKETS = "[" * 100_000


def edit(directory: Path, name: str, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    path = directory / name
    settings = json.loads(path.read_text()) if path.exists() else {}
    settings = {key: value for key, value in {**settings, **changes}.items() if value is not None}
    path.write_text(json.dumps(settings))


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(text) and None


def setting(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda directory: edit(directory, name, **changes)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        make(directory / name)

    return replace


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def header(path: Path) -> None:
    """Write a file of tensors whose header says that it is larger than any file."""
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


SHARED: dict[str, tuple[str, Callable[[Path], None]]] = {
    # Kernels and other code that transformers would fetch from the hub, or import.
    "an attention of the hub": ("config.json", setting("config.json", attn_implementation="owner/repo")),
    "an attention of the hub, within": (
        "config.json",
        setting("config.json", text_config={"_attn_implementation": "kernels-community/flash@main:f"}),
    ),
    "experts of the hub": ("config.json", setting("config.json", experts_implementation={"": "owner/repo"})),
    "a quantization's package": (
        "config.json",
        setting("config.json", quantization_config={"quant_method": "finegrained_fp8"}),
    ),
    "a pretrained backbone": ("config.json", setting("config.json", use_pretrained_backbone=True)),
    "an audio tokenizer": (
        "processor_config.json",
        setting("processor_config.json", audio_tokenizer={"audio_tokenizer_name_or_path": "owner/repo"}),
    ),
    "an adapter": (
        "adapter_config.json",
        setting("adapter_config.json", base_model_name_or_path="owner/repo"),
    ),
    # Files elsewhere.
    "weights elsewhere": ("config.json", setting("config.json", transformers_weights="../w.safetensors")),
    "shards elsewhere": (
        "model.safetensors.index.json",
        setting("model.safetensors.index.json", weight_map={"norm.weight": "/root/w.safetensors"}),
    ),
    "a vocabulary elsewhere": (
        "tokenizer_config.json",
        setting("tokenizer_config.json", vocab_file="/etc/passwd"),
    ),
    # What can't be read.
    "brackets": ("config.json", write("config.json", BRACKETS)),
    "brackets in the tokenizer's settings": (
        "tokenizer_config.json",
        write("tokenizer_config.json", '{"a":' + BRACKETS),
    ),
    "a list": ("config.json", write("config.json", "[1]")),
    "a key twice": ("config.json", write("config.json", '{"model_type": "llama", "model_type": "qwen2"}')),
    "a pipe": ("config.json", replaced("config.json", pipe)),
    "a link without end": ("config.json", replaced("config.json", endless)),
    "a pipe of weights": ("model.safetensors", replaced("model.safetensors", pipe)),
    "an empty tokenizer": ("tokenizer.json", write("tokenizer.json", "{}")),
    "a list as a tokenizer": ("tokenizer.json", write("tokenizer.json", "[1]")),
    "a tokenizer of brackets": ("tokenizer.json", write("tokenizer.json", BRACKETS)),
    "a tokenizer without end": ("tokenizer.json", replaced("tokenizer.json", endless)),
    "layers without end": ("config.json", setting("config.json", num_hidden_layers=10**9)),
}
"""By its name: the file that the error names, and what is done to a directory."""

LOOP = "{% for x in range(100000) %}"
TEMPLATES = {
    "fails": "{{ 1 / 0 }}",
    "calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "never ends": LOOP * 4 + "{% endfor %}" * 4,
    "writes 30 MB": LOOP + "{{ 'x' * 300 }}{% endfor %}",
    "is of brackets": "{{ " + "(" * 100_000 + " }}",
    "imports": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "does not parse": "{% if %}",
}

SHARED |= {
    f"a template that {name}": ("template", write("chat_template.jinja", template))
    for name, template in TEMPLATES.items()
}

WEIGHTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights that lie": ("model", replaced("model.safetensors", header)),
    "a size that is none": ("model", setting("config.json", hidden_size=-1)),
    "a size that is a text": ("model", setting("config.json", hidden_size="x")),
    "a huge size": ("model", setting("config.json", intermediate_size=10**15)),
}

OWN: dict[str, tuple[str, Callable[[Path], None]]] = {
    "no JSON": ("reward_config.json", write("reward_config.json", "{")),
    "brackets": ("reward_config.json", write("reward_config.json", BRACKETS)),
    "a list": ("reward_config.json", write("reward_config.json", "[]")),
    "a key twice": ("reward_config.json", write("reward_config.json", '{"record": {}, "record": {}}')),
    "a pipe": ("reward_config.json", replaced("reward_config.json", pipe)),
    "a link without end": ("reward_config.json", replaced("reward_config.json", endless)),
    "no components": ("reward_config.json", setting("reward_config.json", components=[])),
    "members": ("reward_config.json", setting("reward_config.json", members=[{"name": "../x"}])),
    "files": ("reward_config.json", setting("reward_config.json", files={"head.safetensors": 1})),
    "no record": ("reward_config.json", setting("reward_config.json", record="x")),
    "a pipe of a head": ("head.safetensors", replaced("head.safetensors", pipe)),
    "a damaged head": ("head.safetensors", replaced("head.safetensors", header)),
}


def component(kind: str, **changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        config = json.loads((directory / "reward_config.json").read_text())
        config["components"][kind] |= changes
        (directory / "reward_config.json").write_text(json.dumps(config))

    return change


OWN |= {
    "options null": ("reward_config.json", component("head", options=None)),
    "options of a wrong type": ("reward_config.json", component("head", options={"num_layers": "x"})),
    "an unknown option": ("reward_config.json", component("backbone", options={"command": "rm"})),
    "layers without number": ("reward_config.json", component("head", options={"num_layers": 10**9})),
    "a name of an import": ("os:system", component("head", name="os:system")),
}


def sign(directory: Path) -> None:
    """Make the digests in `reward_config.json` fit the files, where it can be read, as an attacker would."""
    try:
        config = json.loads((directory / "reward_config.json").read_text())
        names = [path.name for path in directory.iterdir() if path.name != "reward_config.json"]
        regular = [
            name for name in names if (directory / name).is_file() and not (directory / name).is_symlink()
        ]
        old = config["files"]
        config["files"] = {name: file_digest(directory / name) for name in regular} | {
            name: digest for name, digest in old.items() if not isinstance(digest, str)
        }
    except (OSError, ValueError, TypeError, RecursionError):
        return
    (directory / "reward_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def original(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a saved tiny model."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    torch.manual_seed(0)
    RewardModel.build(backbone=Component("causal-lm", {"model": str(tiny_models["llama"])})).save(directory)
    return directory


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop templates soon."""
    monkeypatch.setattr("basereward.backbones.chat_template.MAX_SECONDS", 0.5)


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*SHARED, *WEIGHTS, *(f"own: {name}" for name in OWN)])
def test_a_directory_that_is_loaded_is_refused_by_the_name_of_its_file(saved: Path, name: str) -> None:
    part, damage = OWN[name[5:]] if name.startswith("own: ") else (SHARED | WEIGHTS)[name]
    damage(saved)
    if is_regular(saved / "reward_config.json") and name != "own: a key twice":
        sign(saved)
    with pytest.raises(ModelError) as caught:
        load_model(saved)
    assert part in str(caught.value)
    assert str(saved) in str(caught.value) or part == "os:system"
    assert main(["score", str(saved), "--prompt", "q", "--response", "a"]) == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [name for name in [*SHARED, *WEIGHTS] if name != "an adapter"])
def test_a_checkpoint_that_is_imported_is_refused_by_the_name_of_its_file(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    save_file({"score.weight": torch.ones(1, 32)}, source / "score.safetensors")
    part, damage = (SHARED | WEIGHTS)[name]
    damage(source)
    assert main(["import", str(source), "--output", str(tmp_path / "imported")]) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SHARED)
def test_a_model_that_is_planned_is_refused_by_the_name_of_its_file(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny_models["llama"], tmp_path / "model"))
    part, damage = SHARED[name]
    damage(source)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "q", "responses": ["a", "b"], "ranks": [0, 1]}\n')
    run = tmp_path / "run.toml"
    run.write_text(
        f'output = "{tmp_path}/run"\n[backbone]\nname = "causal-lm"\nmodel = "{source}"\n'
        f'[[data.train]]\nname = "basereward"\npath = "{rows}"\n'
    )
    assert main(["plan", str(run), "--gpu", "h100"]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a pipe", "an attention of the hub", "an empty tokenizer"])
def test_a_model_that_is_served_is_refused_by_the_name_of_its_file(
    saved: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    part, damage = SHARED[name]
    damage(saved)
    sign(saved)
    assert main(["serve", str(saved), "--port", "0"]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_a_head_of_another_kind_of_numbers_is_refused(saved: Path, dtype: torch.dtype) -> None:
    path = saved / "head.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    sign(saved)
    with pytest.raises(ModelError, match=f"head.safetensors: .* has the type {dtype}, not torch.float32"):
        load_model(saved)


def test_a_backbone_of_integers_is_refused(saved: Path) -> None:
    path = saved / "model.safetensors"
    save_file({name: (value * 100).long() for name, value in load_file(path).items()}, path)
    sign(saved)
    with pytest.raises(ModelError, match="model.safetensors: .* has the type I64"):
        load_model(saved)


@pytest.mark.parametrize("target", ["a file", "a directory", "nothing"])
def test_a_link_within_a_model_is_refused(saved: Path, tmp_path: Path, target: str) -> None:
    link = saved / "model.safetensors"
    link.rename(tmp_path / "outside")
    link.symlink_to({"a file": tmp_path / "outside", "a directory": tmp_path, "nothing": "none"}[target])
    with pytest.raises(ModelError, match=f"^{link} is a link; a model directory holds files only$"):
        load_model(saved)


def test_a_snapshot_of_the_hub_s_cache_is_loaded(saved: Path, tmp_path: Path) -> None:
    """Its files are links to the blobs beside the snapshots, and to nowhere else."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    saved.rename(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert isinstance(load_model(snapshot), RewardModel)
    (snapshot / "model.safetensors").unlink()
    (blobs / "model.safetensors").rename(tmp_path / "outside")
    (snapshot / "model.safetensors").symlink_to("../../outside")
    with pytest.raises(ModelError, match="is a link"):
        load_model(snapshot)


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        RewardModel.build(backbone=Component("tiny", {})).save(tmp_path / name)
    Ensemble.of([tmp_path / "a", tmp_path / "b"]).save(tmp_path / "both")
    return tmp_path / "both"


def test_a_member_that_is_a_link_is_refused(ensemble: Path, tmp_path: Path) -> None:
    link = ensemble / "members" / "b"
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"^{link} is a link; a model directory holds files only$"):
        load_model(ensemble)


def test_members_verify_their_own_files(ensemble: Path) -> None:
    """Even where the ensemble's list of digests has been made to fit."""
    head = ensemble / "members" / "b" / "head.safetensors"
    tensors = {name: value + 1 for name, value in load_file(head).items()}
    head.unlink()  # a link of the member's own directory
    save_file(tensors, head)
    config = json.loads((ensemble / "reward_config.json").read_text())
    config["files"]["members/b/head.safetensors"] = file_digest(head)
    (ensemble / "reward_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"^member 'b': {head} is not the file that was saved"):
        load_model(ensemble)


@pytest.mark.slow
def test_a_template_that_doubles_a_text_is_stopped_before_it_fills_the_memory(saved: Path) -> None:
    template = "{% set n = namespace(x='x') %}" + LOOP + "{% set n.x = n.x ~ n.x %}{% endfor %}"
    (saved / "chat_template.jinja").write_text(template)
    sign(saved)
    with pytest.raises(ModelError, match="bytes of memory"):
        load_model(saved)


def test_the_settings_of_a_hub_id_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"attn_implementation": "owner/repo"}')
    asked = []

    def cached_file(model: str, name: str, **options: Any) -> str | None:
        asked.append(name)
        return str(tmp_path / name) if name == "config.json" else None

    monkeypatch.setattr("transformers.utils.cached_file", cached_file)
    for _ in range(2):
        with pytest.raises(ModelError, match="config.json: attn_implementation = 'owner/repo' would"):
            check_settings("somebody/model-of-a-test")
    assert asked == [*SETTINGS]
