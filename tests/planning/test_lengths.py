"""Lengths of rows: measured where the data is, assumed where it isn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoTokenizer

from basereward import Comparison
from basereward.config import RunConfig, load_run
from basereward.costs.architecture import Architecture
from basereward.costs.flops import Counts
from basereward.errors import ConfigError, DataError
from basereward.planning.image_grids import ResizedGrids, TiledGrids
from basereward.planning.lengths import AssumedResponses, Measure, Overrides, Row, lengths
from basereward.planning.meta_model import meta_model
from basereward.plugins import PluginManager
from basereward.training.resolve import resolve_run

NONE = Overrides()


def run_of(place: Path, model: Path, data: str, options: str = "") -> RunConfig:
    kind = tiny.backbone_of(model.name)
    (place / "run.toml").write_text(
        f"""
        output = "run"
        backbone = {{ name = "{kind}", model = "{model}"{options} }}
        [data]
        train = [{data}]
        """
    )
    return resolve_run(load_run(place / "run.toml"), PluginManager())


def measure_of(run: RunConfig, *, with_tokenizer: bool = True) -> Measure:
    model, _ = meta_model(run, PluginManager())
    architecture = Architecture.of(model)
    assert architecture is not None
    words = AutoTokenizer.from_pretrained(run.backbone.options["model"]) if with_tokenizer else None
    return Measure(model, architecture, run.backbone.options, words)


def found_of(run: RunConfig, overrides: Overrides = NONE, **options: Any) -> Any:
    return lengths(
        run,
        measure_of(run, **options),
        PluginManager(),
        shared=True,
        overrides=overrides,
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a file of a pair with an image of 112 x 84, and a ranking of three without."""
    tiny.image(112, 84).save(tmp_path / "image.png")
    rows = [
        {"prompt": "what is it", "images": ["image.png"], "responses": ["a cat", "a dog"], "ranks": [0, 1]},
        {"prompt": "cat", "responses": ["cat", "dog", "bird"], "ranks": [0, 1, 2]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["llama", *tiny.VL_KINDS, *tiny.INTERNVL_KINDS])
def test_measured_tokens_and_patches_are_those_that_the_model_reads(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    run = run_of(tmp_path, tiny_models[kind], '{ name = "basereward", path = "x" }', "")
    backbone = PluginManager().build("backbone", run.backbone)
    measure = measure_of(run)
    # What the model's image processor has in place of the published bounds.
    if isinstance(measure.images, ResizedGrids):
        measure.images.bounds = (28 * 28, 28 * 28 * 16)
    if isinstance(measure.images, TiledGrids):
        measure.images.max_tiles = 6
    for comparison in tiny.comparisons(images=kind != "llama"):
        tree = backbone.encode(comparison)
        row = measure.row(comparison)
        assert measure.tokens(row) == len(tree.prompt)
        assert row.responses == tuple(map(len, tree.responses))
        window = measure.architecture.vision.window if measure.architecture.vision else None
        assert measure.counts(row) == Counts.of_tree(tree, window=window)
        assert measure.counts(row, shared=False) == Counts.of_tree(tree, window=window, shared=False)


def test_a_mean_row_is_that_of_the_rows_that_an_epoch_shows(
    tiny_models: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    data = f'{{ name = "basereward", path = "{images}" }}'
    run = run_of(tmp_path, tiny_models["qwen2_5_vl"], data)
    measure = measure_of(run)
    found = found_of(run)
    rows = list(PluginManager().build("dataset", run.data.train[0]))
    pair, ranking = (measure.counts(measure.row(row)) for row in rows)
    # 84 x 112 pixels are 6 x 8 patches of 14 x 14.
    assert (pair.patches, ranking.patches) == (48, 0)
    assert found.mean == (pair + ranking) * 0.5
    assert found.alone.tokens > found.mean.tokens
    assert found.pairs == (1 + 3) / 2
    assert found.num_rows == 2
    assert found.longest == max(pair, ranking, key=lambda counts: counts.tokens)
    assert (found.measured, found.assumed) == ({f"basereward ({images})": 2}, {})


def test_data_that_is_not_there_is_assumed_and_named(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    data = '{ name = "mmpr", path = "nowhere", max_rows = 30, multimodal = true }, ' + (
        '{ name = "olmo2", path = "no/where", max_rows = 10, multimodal = false }'
    )
    run = run_of(tmp_path, tiny_models["qwen2_5_vl"], data, ", max_tokens = 1000")
    found = found_of(run)
    # Both 100 + 2 * 200 tokens; three quarters have an image of 640 x 480, which 476 x 644 pixels, 34 x 46
    # patches and 17 x 23 tokens stand for.
    assert found.mean.tokens == 500 + 0.75 * 17 * 23
    assert found.mean.patches == 0.75 * 34 * 46
    assert (found.num_rows, found.pairs) == (40, 1)
    # The longest that fits: a prompt of 800 tokens and twice 200.
    assert found.longest.tokens == 1200
    two = AssumedResponses(2, is_published=True)
    assert found.assumed == {"mmpr (nowhere)": two, "olmo2 (no/where)": two}
    assert found.measured == {}


@pytest.mark.parametrize(
    ("source", "responses"),
    [
        ('name = "vlfeedback"', AssumedResponses(4, is_published=True)),
        ('name = "vlfeedback", pairs = "one"', AssumedResponses(2, is_published=True)),
        ('name = "vlfeedback", pairs = "each"', AssumedResponses(2, is_published=True)),
        ('name = "ultrafeedback"', AssumedResponses(4, is_published=True)),
        ('name = "ultrafeedback", subset = "hard"', AssumedResponses(2, is_published=True)),
        ('name = "basereward"', AssumedResponses(2, is_published=False)),
    ],
)
def test_a_ranking_that_is_not_there_has_its_published_number_of_responses(
    source: str, responses: AssumedResponses, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    data = f'{{ {source}, path = "nowhere", max_rows = 30, multimodal = false }}'
    found = found_of(run_of(tmp_path, tiny_models["qwen2_5_vl"], data))
    assert found.assumed == {f"{source.split(chr(34))[1]} (nowhere)": responses}
    assert found.mean.tokens == 100 + 200 * responses.number
    assert found.pairs == responses.number * (responses.number - 1) / 2


def test_what_the_user_knows_better_replaces_what_is_found(
    tiny_models: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["qwen2_5_vl"], f'{{ name = "basereward", path = "{images}" }}')
    found = found_of(run, Overrides(50, 7, 9, 4, 1000))
    # The text without images keeps having none: 50 + 9 + 4 * 7, and 50 + 4 * 7.
    assert found.mean.tokens == (87 + 78) / 2
    assert found.mean.patches == 9 * 4 / 2
    assert found.pairs == 6
    assert found.num_rows == 1000
    assert found_of(run, Overrides(image_tokens=0)).mean.patches == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"prompt_tokens": 0}, "--prompt-tokens is 0; allowed: 1 or more"),
        ({"image_tokens": -1}, "--image-tokens is -1; allowed: 0 or more"),
        ({"num_responses": 1}, "--num-responses is 1; allowed: 2 or more"),
        ({"num_rows": 0}, "--num-rows is 0; allowed: 1 or more"),
    ],
)
def test_numbers_that_cannot_be_are_refused(overrides: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Overrides(**overrides)
    assert str(raised.value) == message


def test_without_data_somebody_must_say_how_much_there_is(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["llama"], '{ name = "basereward", path = "nowhere.jsonl" }')
    with pytest.raises(ConfigError) as raised:
        found_of(run)
    assert str(raised.value).endswith("; to plan without the data, say how much there is by --num-rows")
    assert "nowhere.jsonl" in str(raised.value)
    found = found_of(run, Overrides(num_rows=12))
    assert (found.num_rows, found.mean.tokens) == (12, 500)


def test_rows_that_do_not_fit_are_left_out_and_none_that_fits_is_an_error(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "cat " * number, "responses": ["a", "b"], "ranks": [0, 1]} for number in (1, 100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f'{{ name = "basereward", path = "{path}" }}'
    short = found_of(run_of(tmp_path, tiny_models["llama"], data, ", max_tokens = 120"))
    assert short.mean.tokens < 120 < found_of(run_of(tmp_path, tiny_models["llama"], data)).longest.tokens
    with pytest.raises(DataError) as raised:
        found_of(run_of(tmp_path, tiny_models["llama"], data, ", max_tokens = 9"))
    assert str(raised.value) == (
        f"basereward ({path}): no row fits max_tokens = 9; raise it, or lower the backbone's max_pixels"
    )


def test_without_a_tokenizer_four_characters_are_a_token(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, tiny_models["llama"], '{ name = "basereward", path = "x" }')
    measure = measure_of(run, with_tokenizer=False)
    row = measure.row(Comparison("12345678", ["1234", "12345"], ranks=[0, 1]))
    assert row == Row(text_tokens=20 + 2, responses=(1 + 1, 1 + 2))
    with pytest.raises(DataError, match="the model reads text only"):
        measure.row(Comparison("x", ["a", "b"], images=[tiny.image()], ranks=[0, 1]))


def test_frames_of_a_video_are_counted_as_they_are_read(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    data = '{ name = "basereward", path = "x" }'
    run = run_of(tmp_path, tiny_models["qwen2_5_vl"], data, ", max_frames = 4")
    video = [tiny.image(84, 56, seed) for seed in range(7)]
    comparison = Comparison("what happens", ["a cat runs", "a dog"], videos=[video], ranks=[0, 1])
    tree = PluginManager().build("backbone", run.backbone).encode(comparison)
    measure = measure_of(run)
    assert measure.counts(measure.row(comparison)) == Counts.of_tree(tree, window=4)
    text = measure_of(run_of(tmp_path, tiny_models["llama"], data))
    with pytest.raises(DataError, match="videos: the model reads text only; take the videos out of the row"):
        text.row(comparison)
