"""The recipes: every one can be read, names what exists, and the small one runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import runs

from basereward import train
from basereward.config import load_run, stage_runs
from basereward.plugins import PluginManager
from basereward.training.resolve import resolve_run

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(ROOT.glob("*.toml"))
BACKBONES = sorted((ROOT / "backbones").glob("*.toml"))


@pytest.mark.parametrize("path", [*RECIPES, *BACKBONES], ids=lambda path: path.stem)
def test_every_recipe_names_components_and_options_that_exist(path: Path) -> None:
    for run in stage_runs(load_run(path)):
        whole = resolve_run(run, PluginManager(discover=True))
        assert whole.output == run.output
        assert whole.backbone.options.items() >= run.backbone.options.items()
        assert "share_prompts" in whole.paradigm.options  # what the file leaves out is filled in


def test_the_papers_recipe_is_the_papers() -> None:
    run = resolve_run(load_run(RECIPES[0].with_name("basereward-7b.toml")), PluginManager())
    assert (run.backbone.name, run.head.name, run.loss.name, run.paradigm.name) == (
        "qwen-vl",
        "mlp",
        "bradley-terry",
        "scalar",
    )
    assert (run.train.lr, run.train.batch_size) == (3e-6, 128)
    assert (run.head.options["num_layers"], run.head.options["activation"]) == (2, "silu")
    # "No auxiliary or regularising term, no margin" (section 5.1).
    off = {"margin": False, "label_smoothing": 0.0, "zero_coefficient": 0.0, "length_normalize": False}
    assert off.items() <= run.loss.options.items()


def test_the_papers_mixture_is_its_seven_data_sets() -> None:
    data = resolve_run(load_run(RECIPES[0].with_name("basereward-7b.toml")), PluginManager()).data
    assert data.streaming
    rows = [(source.name, source.max_rows or 0, source.multimodal) for source in data.train]
    # Tables 3 and 5: 83k, 2M, 200k (five data sets of R1-Reward's), 63k, 65k, 378k and 63k: 2.85M pairs.
    others = (10_792 + 17_207 + 10_793 + 17_242) + 5_000  # WildChat but for `unused`, and swe-arena
    assert others == 61_034
    r1_reward = 105_740 + 40_959 + 43_947 + 9_409 + 5_685
    assert r1_reward == 105_740 + 100_000
    assert sum(size for _, size, _ in rows) == 2_857_814
    assert 83_132 + 2_000_000 + r1_reward + others + 65_600 + 378_341 + 63_967 == 2_857_814
    # The paper's own mix has VLFeedback as 21 % of R1-Reward's pairs: one pair of each ranking of four.
    [vlfeedback] = [source for source in data.train if source.name == "vlfeedback"]
    assert vlfeedback.pairs == "one"
    assert round(43_947 / r1_reward, 2) == 0.21
    text = sum(size for _, size, multimodal in rows if not multimodal)
    assert round(text / 2_857_814, 2) == 0.20
    assert data.train[-1].options["subset"] == "hard"
    # Streaming needs no table to be read to know how long an epoch is: 2,857,814 / 128 = 22,326.7.
    assert all(size for _, size, _ in rows)


def test_each_backbone_of_the_study_has_a_recipe_that_differs_in_nothing_else() -> None:
    sizes = {
        "internvl3": ("OpenGVLab/InternVL3-{}-hf", ("1B", "2B", "8B", "14B", "38B", "78B")),
        "qwen2-vl": ("Qwen/Qwen2-VL-{}-Instruct", ("2B", "7B", "72B")),
        "qwen2.5-vl": ("Qwen/Qwen2.5-VL-{}-Instruct", ("3B", "7B", "32B", "72B")),
    }
    wanted = {
        f"{family}-{size.lower()}": model.format(size)
        for family, (model, names) in sizes.items()
        for size in names
    }
    common = load_run(ROOT / "backbones" / "table-6.toml")
    runs = {path.stem: load_run(path) for path in BACKBONES if path.stem != "table-6"}
    assert {name: run.backbone.options["model"] for name, run in runs.items()} == wanted
    for name, run in runs.items():
        assert run.output == f"runs/backbones/{name}"
        assert (run.head, run.loss, run.paradigm, run.data) == (
            common.head,
            common.loss,
            common.paradigm,
            common.data,
        )
        assert run.train == common.train


def test_the_small_recipe_runs(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "chosen": row["responses"][0], "rejected": row["responses"][1]}
        for row in runs.rows(4, seed=1)
    ]
    path = runs.write_rows(tmp_path / "data.jsonl", rows)
    overrides = [
        f"output={tmp_path / 'run'}",
        f"backbone.model={tiny_models['llama']}",
        f"data.train.0.path={path}",
        f"data.eval.0.path={path}",
    ]
    result = train(load_run(RECIPES[0].with_name("text-small.toml"), overrides), progress=False, plots=False)
    assert result.num_steps == 1
    assert result.model_dir.is_dir()
