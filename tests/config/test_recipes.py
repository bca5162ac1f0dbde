"""Recipes by their names: as a run file, as a base, in the list."""

from __future__ import annotations

from pathlib import Path

import pytest

from basereward import cli
from basereward.config import load_run, run_table
from basereward.config.recipes import recipe_files, recipes_directory, title_of
from basereward.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_recipe_s_name_stands_for_its_file() -> None:
    assert load_run("recipe:basereward-7b") == load_run(RECIPES / "basereward-7b.toml")
    # Its own base is a path from where it lies.
    of_file = run_table(RECIPES / "backbones" / "internvl3-8b.toml")
    assert run_table("recipe:backbones/internvl3-8b") == of_file


def test_a_run_file_changes_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('base = "recipe:basereward-7b"\noutput = "runs/mine"\n')
    changed = load_run(tmp_path / "run.toml", ["train.lr=1e-6"])
    original = load_run("recipe:basereward-7b")
    assert (changed.output, changed.train.lr) == ("runs/mine", 1e-6)
    assert changed.data == original.data


def test_a_recipe_that_there_is_not_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run("recipe:basereward-8b")
    assert str(caught.value) == (
        "recipe:basereward-8b: there is no recipe 'basereward-8b'; did you mean 'basereward-7b'?"
    )
    (tmp_path / "run.toml").write_text('base = "recipe:zzz"\n')
    with pytest.raises(ConfigError, match=r"no recipe 'zzz'; `basereward recipes` lists them"):
        load_run(tmp_path / "run.toml")


def test_the_recipes_of_an_installed_package_lie_in_it(tmp_path: Path) -> None:
    assert recipes_directory(tmp_path / "basereward") == tmp_path / "recipes"
    (tmp_path / "basereward" / "recipes").mkdir(parents=True)
    assert recipes_directory(tmp_path / "basereward") == tmp_path / "basereward" / "recipes"


def test_the_command_lists_every_recipe_in_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(recipe_files())
    assert max(map(len, lines)) <= 80
    kinds = {line.split()[0]: line.split()[1] for line in lines}
    assert (kinds["basereward-7b"], kinds["studies/table-1"]) == ("run", "study")


def test_the_command_prints_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "text-small"]) == 0
    assert capsys.readouterr().out == (RECIPES / "text-small.toml").read_text(encoding="utf-8")
    assert cli.main(["recipes", "text-smal"]) == 2
    assert "did you mean 'text-small'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Trains 2.5 of it: fast.\n# More.\n", "Trains 2.5 of it"),
        ('base = "../table-6.toml"\n[backbone]\nmodel = "A/B"\n', "table-6 with A/B"),
        ('base = "table-6.toml"\n', "changes table-6"),
    ],
)
def test_a_title_is_the_first_sentence_or_what_is_changed(text: str, title: str) -> None:
    assert title_of(text) == title
