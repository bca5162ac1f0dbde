"""Run files: what they mean, and how their mistakes are named."""

from __future__ import annotations

import dataclasses
import math
import os
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.config import (
    Component,
    DataConfig,
    LoraConfig,
    MixtureConfig,
    RunConfig,
    Source,
    TrainConfig,
    load_run,
    stage_runs,
    to_toml,
)
from basereward.errors import ConfigError

SMALL = """
output = "runs/a"

[backbone]
name = "qwen-vl"
model = "models/qwen"

[[data.train]]
name = "basereward"
path = "train.jsonl"
"""


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a small run file, in the current directory so that messages are short."""
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(SMALL)
    return Path("run.toml")


def mistake(path: Path, text: str = "", overrides: list[str] | None = None) -> str:
    """Return the message with which a run file is refused."""
    if text:
        path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_run(path, overrides or [])
    return str(error.value)


def test_run_file_may_leave_out_what_has_a_default(run_file: Path) -> None:
    run = load_run(run_file)
    assert run == RunConfig(
        output="runs/a",
        backbone=Component("qwen-vl", {"model": "models/qwen"}),
        data=DataConfig(train=(Source("basereward", {"path": "train.jsonl"}),)),
    )
    assert (run.head, run.loss, run.paradigm) == (
        Component("mlp"),
        Component("bradley-terry"),
        Component("scalar"),
    )
    assert (run.train, run.seed, run.data.on_bad_row, run.data.eval) == (TrainConfig(), 0, "skip", ())


def test_run_file_may_set_everything(run_file: Path) -> None:
    run_file.write_text(
        'output = "o"\nseed = 7\nplugins = ["mine"]\nloss = "hinge"\n'
        "[head]\nnum_layers = 3\n"
        '[backbone]\nname = "b"\n[backbone.extra]\nx = [1, 2]\n'
        '[data]\non_bad_row = "fail"\n'
        '[[data.train]]\nname = "trl"\n[[data.train]]\nname = "made"\nsize = 3\n[[data.eval]]\nname = "trl"\n'
        '[train]\nlr = 1\nbetas = [0.9, 1e-1]\nfreeze = ["vision"]\nmax_steps = 5\nlr_parts = { head = 1 }\n'
    )
    assert load_run(run_file) == RunConfig(
        output="o",
        seed=7,
        plugins=("mine",),
        loss=Component("hinge"),
        head=Component("mlp", {"num_layers": 3}),
        backbone=Component("b", {"extra": {"x": [1, 2]}}),
        data=DataConfig(
            train=(Source("trl"), Source("made", {"size": 3})),
            eval=(Component("trl"),),
            on_bad_row="fail",
        ),
        train=TrainConfig(lr=1.0, betas=(0.9, 0.1), freeze=("vision",), max_steps=5, lr_parts={"head": 1.0}),
    )


KEYS = f"keys: {', '.join(item.name for item in dataclasses.fields(TrainConfig))}"
MISTAKES = {
    "a = ": "is not TOML: Invalid value (at end of document)",
    "sed = 1": "the top level has no key 'sed'; did you mean 'seed'? keys: output, seed, init, fresh_head, "
    "cache, plugins, log, backbone, head, loss, paradigm, data, train, stages",
    "seed = 1": "the top level needs 'output' and 'backbone' and 'data'",
    "[train]\nlrr = 1": f"[train] has no key 'lrr'; did you mean 'lr'? {KEYS}",
    "[train]\nxyz = 1": f"[train] has no key 'xyz'; {KEYS}",
    "[train]\nlr = '1e-5'": "train.lr must be a number or \"none\", not the string '1e-5'",
    "[train]\nlr = true": 'train.lr must be a number or "none", not true',
    "[train]\nlr = -1": "train.lr must be 0 or above, not -1.0",
    "[train]\nlr = nan": "train.lr must be 0 or above, not nan",
    "[train]\nbatch_size = 1.5": "train.batch_size must be an integer, not the number 1.5",
    "[train]\nbatch_size = 0": "train.batch_size must be at least 1, not 0",
    "[train]\nmax_steps = 'all'": "train.max_steps must be an integer or \"none\", not the string 'all'",
    "[train]\nshuffle = 1": "train.shuffle must be true or false, not the integer 1",
    "[train]\nschedule = 'cosin'": "train.schedule must be one of 'cosine', 'linear', 'constant', "
    "not the string 'cosin'; did you mean 'cosine'?",
    "[train]\nfreeze = 'vision'": "train.freeze must be a list (tuple[str, ...]), not the string 'vision'",
    "[train]\nfreeze = ['a', 1]": "train.freeze.1 must be a string, not the integer 1",
    "[train]\nbetas = [0.9]": "train.betas must be a list of 2 values (tuple[float, float]), not of 1",
    "[train]\nbetas = [0.9, 1]": "train.betas.1 must be from 0 up to, not including, 1, not 1.0",
    "[train]\nlr_parts = { head = 'x' }": "train.lr_parts.head must be a number, not the string 'x'",
    "[train]\nlr_parts = { head = -1 }": "train.lr_parts.head must be 0 or above, not -1.0",
    "[train]\nepochs = 0": "train.epochs must be above 0, not 0.0",
    "[train]\nwarmup_fraction = 2": "train.warmup_fraction must be from 0 to 1, not 2.0",
    "[train]\nema_decay = 1": "train.ema_decay must be from 0 up to, not including, 1, not 1.0",
    "[train]\npatience = 0": "train.patience must be at least 1, not 0",
    "[train]\npatience = 2": "train.patience needs held-out data; add a [[data.eval]] table",
    "[train]\nbest_by = 'auc'": "train.best_by needs held-out data; add a [[data.eval]] table",
    "[train]\noptimizer = 'adam'": "train.optimizer must be one of 'adamw', 'adafactor', 'adamw-8bit', "
    "not the string 'adam'; did you mean 'adamw'?",
    "[train]\noptimizer = 'adafactor'\nbetas = [0.9, 0.95]": "train.betas is of AdamW, and the optimizer is "
    "'adafactor'; leave it out",
    "[train]\noptimizer = 'adafactor'\nparallel = 'fsdp'": "train.optimizer must be 'adamw' where parallel "
    "is 'fsdp', not 'adafactor', which needs whole matrices",
    "[train.lora]\nrank = 0": "train.lora.rank must be at least 1, not 0",
    "[train.lora]\nalpha = 0": "train.lora.alpha must be above 0, not 0.0",
    "[train.lora]\ndropout = 1": "train.lora.dropout must be from 0 up to, not including, 1, not 1.0",
    "[train.lora]\nparts = []": "train.lora.parts must not be empty; leave out [train.lora] to train without "
    "adapters",
    "[train.lora]\nr = 8": "[train.lora] has no key 'r'; write rank; keys: rank, alpha, dropout, targets, "
    "parts, whole_parts, rslora, dora",
    "[[stages]]\ntrain = { lr = 1 }": "[stages.0] needs 'name'",
    "[[stages]]\nname = 'a/b'": "stages.0.name must be of letters, digits, - and _, not 'a/b'",
    "[[stages]]\nname = 'a'\n[[stages]]\nname = 'a'": "stages.1.name is 'a', as another stage's is",
    "[[stages]]\nname = 'a'\n[[stages]]\nname = 'b'\ntrain = { lrr = 1 }": "stages.1.train.lrr has no key "
    f"'lrr'; did you mean 'lr'? {KEYS}",
    "[[stages]]\nname = 'a'\ntrain = { patience = 2 }": "stages.0.train.patience needs held-out data; add a "
    "[[data.eval]] table",
    "train = 1": "train must be a table, not the integer 1",
    "loss = 1": "loss must be a name or a table, not the integer 1",
    "[loss]\nname = 1": "loss.name must be a string, not the integer 1",
    "[backbone]\nmodel = 'x'": "backbone needs 'name'",
    "[data]\ntrain = []": "data.train must name at least one data set",
    "[data]\neval = []": "[data] needs 'train'",
    "[[data.train]]\npath = 'x'": "data.train.0 needs 'name'",
    "[[data.train]]\nname = 'x'\nweight = -1": "data.train.0.weight must be 0 or above, not -1.0",
    "[[data.train]]\nname = 'x'\nmax_rows = 0": "data.train.0.max_rows must be at least 1, not 0",
    "[[data.train]]\nname = 'x'\nmultimodal = 1": 'data.train.0.multimodal must be true or false or "none", '
    "not the integer 1",
    "[data.mixture]\ntemprature = 2\n[[data.train]]\nname = 'x'": "[data.mixture] has no key 'temprature'; "
    "did you mean 'temperature'? keys: temperature, multimodal_share, shuffle_buffer",
    "[data.mixture]\ntemperature = 0\n[[data.train]]\nname = 'x'": "data.mixture.temperature must be above "
    "0, not 0.0",
    "[data.mixture]\nmultimodal_share = 2\n[[data.train]]\nname = 'x'": "data.mixture.multimodal_share must "
    "be from 0 to 1, not 2.0",
    "[data.mixture]\nshuffle_buffer = 0\n[[data.train]]\nname = 'x'": "data.mixture.shuffle_buffer must be "
    "at least 1, not 0",
    "[data.train]\nname = 'x'": "data.train must be a list (tuple[Source, ...]), not a table",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items())
def test_mistake_is_named_by_file_table_and_key(run_file: Path, text: str, message: str) -> None:
    top, table = (text, "") if not text.startswith("[") else ("", text)
    # What is missing shows only where nothing else was given.
    whole = text if "needs 'output'" in message or "not TOML" in message else f"output = 'o'\n{top}\n"
    if whole != text:
        whole += "" if "backbone" in text else "backbone = 'b'\n"
        whole += table + "\n"
        whole += "" if "data" in text else "[[data.train]]\nname = 'd'\n"
    assert mistake(run_file, whole) == f"run.toml: {message}"


def test_output_must_be_named(run_file: Path) -> None:
    assert mistake(run_file, overrides=["output="]) == (
        "--set output=: output must be the path of a directory, not an empty string"
    )
    assert (
        mistake(run_file, overrides=["seed=-1"]) == "--set seed=-1: seed must be from 0 to 2**63 - 1, not -1"
    )


def test_file_that_cannot_be_read_is_named(run_file: Path) -> None:
    assert mistake(Path("no.toml")) == "no.toml: can't be read: No such file or directory"
    assert mistake(Path(".")) == ".: can't be read: Is a directory"
    run_file.write_bytes(b"\xff")
    assert mistake(run_file).startswith("run.toml: is not TOML: 'utf-8' codec can't decode byte 0xff")


OVERRIDES: dict[str, Any] = {
    "train.lr=1e-5": ("train", "lr", 1e-5),
    "train.precision=bf16": ("train", "precision", "bf16"),
    'train.precision="bf16"': ("train", "precision", "bf16"),
    "train.freeze=['vision', 'projector']": ("train", "freeze", ("vision", "projector")),
    "train.freeze.0=vision": ("train", "freeze", ("vision",)),
    "train.max_steps=none": ("train", "max_steps", None),
    "train.shuffle=false": ("train", "shuffle", False),
    "train.lr_parts.head=1e-3": ("train", "lr_parts", {"head": 1e-3}),
    'train.lr_parts."vision.merger"=1': ("train", "lr_parts", {"vision.merger": 1.0}),
    "output=runs/b": ("output", "runs/b"),
    "output=2025-01-31": ("output", "2025-01-31"),
    "output=a=b": ("output", "a=b"),
    "output=a\nseed = 3": ("output", "a\nseed = 3"),
    " seed = 3": ("seed", 3),
    "loss=hinge": ("loss", Component("hinge")),
    "loss.margin=2": ("loss", Component("bradley-terry", {"margin": 2})),
    "backbone.name=causal-lm": ("backbone", Component("causal-lm", {"model": "models/qwen"})),
    "data.train.0.path=b.jsonl": ("data", "train", (Source("basereward", {"path": "b.jsonl"}),)),
    "data.train.1.name=trl": (
        "data",
        "train",
        (Source("basereward", {"path": "train.jsonl"}), Source("trl")),
    ),
    "data.eval.0.name=trl": ("data", "eval", (Component("trl"),)),
    "data.eval.0=trl": ("data", "eval", (Component("trl"),)),
    "data.on_bad_row=fail": ("data", "on_bad_row", "fail"),
}


def test_file_that_may_never_end_or_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "deep.toml").write_text(f"x = {'[' * 100_000}", encoding="utf-8")
    (tmp_path / "large.toml").write_bytes(b"#" * (16 * 2**20 + 1))
    for name, message in (
        ("fifo.toml", "can't be read: it is no regular file"),
        ("zero.toml", "can't be read: it is no regular file"),
        ("deep.toml", "is nested too deeply"),
        ("large.toml", "can't be read: it has more than the 16,777,216 bytes allowed"),
    ):
        with pytest.raises(ConfigError, match=f"{name}: {message}"):
            load_run(tmp_path / name)


def test_override_that_is_nested_deeply_is_refused(run_file: Path) -> None:
    with pytest.raises(ConfigError, match="is nested too deeply"):
        load_run(run_file, [f"train.lr={'[' * 50_000}"])


def test_a_run_file_changes_its_base(run_file: Path) -> None:
    Path("changes").mkdir()
    changes = Path("changes/longer.toml")
    changes.write_text('base = "../run.toml"\noutput = "runs/b"\nloss = "hinge"\n[train]\nlr = 1e-4\n')
    plain, changed = load_run(run_file), load_run(changes)
    assert (changed.output, changed.loss, changed.train.lr) == ("runs/b", Component("hinge"), 1e-4)
    assert (changed.data, changed.backbone, changed.train.batch_size) == (
        plain.data,
        plain.backbone,
        plain.train.batch_size,
    )
    again = Path("again.toml")
    again.write_text('base = "changes/longer.toml"\nbackbone = { name = "tiny", dim = 8 }\n')
    found = load_run(again, ["train.lr=1"])
    assert (found.output, found.backbone, found.train.lr) == ("runs/b", Component("tiny", {"dim": 8}), 1)


def test_a_base_that_can_not_be_used_is_named(run_file: Path) -> None:
    assert mistake(run_file, "base = 3") == "run.toml: base must be the path of a run file, not 3"
    assert mistake(run_file, 'base = "no.toml"') == "no.toml: can't be read: No such file or directory"
    Path("other.toml").write_text('base = "run.toml"')
    assert mistake(run_file, 'base = "other.toml"') == (
        "other.toml: base = 'run.toml' makes a cycle: run.toml -> other.toml -> run.toml"
    )


@pytest.mark.parametrize(("override", "expected"), OVERRIDES.items())
def test_override_replaces_one_key(run_file: Path, override: str, expected: tuple[Any, ...]) -> None:
    *path, value = expected
    found: Any = load_run(run_file, [override])
    for name in path:
        found = getattr(found, name)
    assert found == value


def test_overrides_apply_in_their_order(run_file: Path) -> None:
    run = load_run(run_file, ["loss=hinge", "loss.margin=1", "loss.margin=2"])
    assert run.loss == Component("hinge", {"margin": 2})


BAD_OVERRIDES = {
    "train.lr": "--set train.lr: write KEY=VALUE, such as train.lr=1e-5",
    "=3": "--set =3: write KEY=VALUE, such as train.lr=1e-5",
    "train..lr=3": "--set train..lr=3: write KEY=VALUE, such as train.lr=1e-5",
    "a b=3": "--set a b=3: write KEY=VALUE, such as train.lr=1e-5",
    "train.lr=fast": "--set train.lr=fast: train.lr must be a number or \"none\", not the string 'fast'",
    "train.batch_size=0": "--set train.batch_size=0: train.batch_size must be at least 1, not 0",
    "data.train.2.path=x": "--set data.train.2.path=x: data.train is a list of 1; write "
    "data.train.0 for its first item",
    "data.train.path=x": "--set data.train.path=x: data.train is a list of 1; write "
    "data.train.0 for its first item",
    "data.train.1.path=x": "run.toml: data.train.1 needs 'name'",
    "train.freez=[]": f"--set train.freez=[]: [train] has no key 'freez'; did you mean 'freeze'? {KEYS}",
}


@pytest.mark.parametrize(("override", "message"), BAD_OVERRIDES.items())
def test_bad_override_is_named(run_file: Path, override: str, message: str) -> None:
    assert mistake(run_file, overrides=[override]) == message


def test_override_does_not_descend_into_a_value(run_file: Path) -> None:
    text = "seed = 1\n" + SMALL
    assert mistake(run_file, text, ["seed.x=1"]) == "--set seed.x=1: seed is a value, not a table"


MIXTURE_KEYS = ("weight", "max_rows", "multimodal")

texts = st.text(max_size=12)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
numbers = st.floats(allow_nan=False)
scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
options = st.dictionaries(texts.filter(lambda key: key != "name"), values, max_size=4)
components = st.builds(Component, texts, options)
sources = st.builds(
    Source,
    texts,
    options.map(lambda table: {key: value for key, value in table.items() if key not in MIXTURE_KEYS}),
    weight=st.floats(0, 1e300),
    max_rows=st.none() | st.integers(1),
    multimodal=st.none() | st.booleans(),
)
positive = st.floats(min_value=0, exclude_min=True, max_value=1e300)
runs = st.builds(
    RunConfig,
    output=st.text(min_size=1),
    seed=st.integers(0, 2**63 - 1),
    plugins=st.lists(texts).map(tuple),
    backbone=components,
    head=components,
    data=st.builds(
        DataConfig,
        train=st.lists(sources, min_size=1, max_size=3).map(tuple),
        eval=st.lists(components, max_size=2).map(tuple),
        on_bad_row=st.sampled_from(["fail", "skip"]),
        mixture=st.builds(MixtureConfig, multimodal_share=st.none() | st.floats(0, 1)),
        curation=st.lists(components, max_size=2).map(tuple),
        streaming=st.booleans(),
    ),
    train=st.builds(
        TrainConfig,
        epochs=positive,
        max_steps=st.none() | st.integers(1),
        lr_parts=st.dictionaries(texts, positive, max_size=3),
        freeze=st.lists(texts, max_size=3).map(tuple),
        schedule=st.sampled_from(["cosine", "linear", "constant"]),
        shuffle=st.booleans(),
        lora=st.none() | st.builds(LoraConfig, rank=st.integers(1), targets=st.just(("q_proj",))),
    ),
)


@given(runs)
def test_run_written_as_toml_is_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, run: RunConfig
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(to_toml(run), encoding="utf-8", newline="")
    assert load_run(path) == run


def test_written_toml_says_every_default(run_file: Path) -> None:
    table = tomllib.loads(to_toml(load_run(run_file)))
    assert table["train"]["warmup_fraction"] == 0.05
    assert (table["loss"], table["data"]["on_bad_row"]) == ({"name": "bradley-terry"}, "skip")


def test_none_is_written_as_a_word_that_options_allow(run_file: Path) -> None:
    run = load_run(run_file)
    run = RunConfig(output="o", backbone=Component("b", {"limit": None, "scale": math.inf}), data=run.data)
    run_file.write_text(to_toml(run))
    assert load_run(run_file).backbone.options == {"limit": "none", "scale": math.inf}


def test_a_path_is_written_as_its_text(run_file: Path) -> None:
    data = DataConfig(train=(Source("basereward", {"path": Path("a", "b.jsonl")}),))
    run_file.write_text(to_toml(RunConfig(output="o", backbone=Component("b"), data=data)))
    assert load_run(run_file).data.train[0].options == {"path": "a/b.jsonl"}


STAGED = (
    SMALL
    + """
[train]
lr = 1e-5
freeze = ["vision"]

[train.lora]
rank = 4

[[stages]]
name = "first"

[[stages]]
name = "second"
start = "best"

[stages.train]
lr = 3e-6
freeze = []
lora = "none"

[stages.data.mixture]
temperature = 2.0

[[stages.data.train]]
name = "trl"
"""
)


def test_a_stage_differs_from_its_run_in_what_it_says(run_file: Path) -> None:
    run = load_run(run_file, [])
    assert stage_runs(run) == [run]
    run_file.write_text(STAGED)
    run = load_run(run_file, ["stages.1.train.epochs=2"])
    first, second = stage_runs(run)
    assert first == dataclasses.replace(run, output="runs/a/first", stages=())
    assert second.data == dataclasses.replace(
        run.data, train=(Source("trl"),), mixture=MixtureConfig(temperature=2.0)
    )
    assert second.train == TrainConfig(lr=3e-6, epochs=2.0)
    assert (second.output, second.init) == ("runs/a/second", "runs/a/first/model")


def test_a_run_of_stages_written_as_toml_is_read_back_the_same(run_file: Path) -> None:
    run_file.write_text(STAGED)
    run = load_run(run_file)
    run_file.write_text(to_toml(run))
    assert load_run(run_file) == run


def test_the_learning_rate_fits_what_is_trained() -> None:
    assert TrainConfig().peak_lr == 3e-6
    assert TrainConfig(lora=LoraConfig()).peak_lr == 1e-4
    assert TrainConfig(lora=LoraConfig(), lr=2e-5).peak_lr == 2e-5
