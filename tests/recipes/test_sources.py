"""Every data set that a recipe names is read whole, by the relative path that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hub_datasets
import pytest

from basereward.config import load_run, stage_runs
from basereward.config.run import Source
from basereward.data.ranking_pairs import open_source
from basereward.errors import DataError
from basereward.plugins import PluginManager
from basereward.study import load_study, planned_runs

RECIPES = Path(__file__).parents[2] / "recipes"

NUM_ROWS = {
    "data/RLAIF-V-Dataset": 2,
    "data/MMPR-v1.2": 3,
    "data/MM-RLHF": 1,
    "data/VLFeedback": 1,
    "data/POVID": 1,
    "data/wildvision-battle": 0.5,  # without ties
    "data/tulu-3-wildchat-ultrafeedback": 4,
    "data/swe-arena-preference-5k": 0.5,
    "data/tulu-3-IF-augmented-on-policy-70b": 1,
    "data/olmo-2-0425-1b-preference-mix": 1,
    "data/UltraFeedback": 2,
    "data/SHP": 2,
    "data/MMIF-23k": 1,
    "data/OmniAlign-V-DPO": 2,
    "data/llava-critic-113k": 1,
    "data/Skywork-Reward-Preference-80K-v0.2": 1,
    "data/r1-reward-traces.jsonl": 1,
}
"""Rows of each data set, in `hub_datasets.NUM_ROWS`."""


def sources() -> Iterator[Source]:
    """Yield the training data of every recipe for a published data set."""
    for path in (*RECIPES.glob("*.toml"), *(RECIPES / "backbones").glob("*.toml")):
        for run in stage_runs(load_run(path)):
            yield from run.data.train
    for path in RECIPES.glob("studies/[tf]*-*.toml"):
        for planned in planned_runs(load_study(path, ["seeds=[0]"]), PluginManager(), path=path):
            yield from planned.config.data.train


@pytest.fixture(scope="module")
def by_path() -> dict[str, list[Source]]:
    """Return the sources by their paths."""
    found: dict[str, list[Source]] = {}
    for source in sources():
        found.setdefault(str(source.options["path"]), []).append(source)
    return found


def test_the_recipes_name_these_data_sets(by_path: dict[str, list[Source]]) -> None:
    assert set(by_path) - {"data/texts-train.jsonl"} == set(NUM_ROWS)
    assert {f"data/{name}" for name in hub_datasets.DATA_SETS} < set(NUM_ROWS)


@pytest.mark.parametrize("path", NUM_ROWS)
def test_every_row_is_read_and_its_images_opened(
    path: str, by_path: dict[str, list[Source]], cwd: Path
) -> None:
    for source in {str(source): source for source in by_path[path]}.values():
        rows = list(open_source(source, PluginManager()).read())
        bad = [row.reason for row in rows if isinstance(row, DataError)]
        # One row of UltraFeedback has four responses of one rating, of which none is the best.
        wanted = ["all responses have the same rating, so no pair is the one that differs most"]
        assert bad == (wanted if source.options.get("subset") == "hard" else [])
        assert len(rows) == NUM_ROWS[path] * hub_datasets.NUM_ROWS
        for row in rows:
            if not isinstance(row, DataError):
                for image in (*row.images, *(frame for video in row.videos for frame in video.frames)):
                    assert image.open().width in (28, 56, 84)
        if source.pairs == "one":
            assert all(isinstance(row, DataError) or len(row.responses) == 2 for row in rows[:-1])
