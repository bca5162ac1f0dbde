"""The command that installs an extra: from an index by its name, otherwise its packages themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from basereward.extras import Requirements, install_command, requirements, unmet

ROOT = Path(__file__).parents[1]

METADATA = """\
Metadata-Version: 2.4
Name: basereward
Version: 0.1.0
Requires-Dist: torch>=2.10
Requires-Dist: colorama; sys_platform == "win32"
Provides-Extra: train
Requires-Dist: peft; extra == "train"
Requires-Dist: tensorboard>=2; extra == "train"
Provides-Extra: ray
Requires-Dist: ray[data]; extra == "ray"
Provides-Extra: all
Requires-Dist: basereward[ray,train]; extra == "all"
Provides-Extra: plot
"""


def installed(site: Path, monkeypatch: pytest.MonkeyPatch, *, url: str | None) -> Requirements:
    """Return what is read of a distribution in a directory; `url` is where pip says that it came from."""
    information = site / "basereward-0.1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(METADATA)
    if url is not None:
        (information / "direct_url.json").write_text(f'{{"url": "{url}", "dir_info": {{}}}}')
    monkeypatch.setattr(sys, "path", [str(site)])
    return requirements(site / "basereward")


def test_what_came_from_an_index_is_installed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = installed(tmp_path, monkeypatch, url=None)
    assert read.is_released
    assert read.install_command("train") == "pip install 'basereward[train]'"


def test_what_came_from_a_directory_is_installed_by_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = installed(tmp_path, monkeypatch, url="file:///checkout")
    assert not read.is_released
    assert read.install_command("train") == "pip install peft 'tensorboard>=2'"
    assert read.install_command("all") == "pip install 'ray[data]' peft 'tensorboard>=2'"
    assert (read.base, read.extras["plot"]) == (("torch>=2.10",), ())


def test_a_checkout_s_own_file_is_read_rather_than_the_metadata_of_an_older_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "basereward"\ndependencies = ["torch>=2.11"]\n'
        '[project.optional-dependencies]\ntrain = ["peft"]\n'
    )
    read = installed(tmp_path, monkeypatch, url="file:///checkout")
    assert (read.base, read.install_command("train")) == (("torch>=2.11",), "pip install peft")
    # Somebody else's project is none.
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    assert requirements(tmp_path / "basereward").base == ("torch>=2.10",)


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a source checkout")
def test_a_checkout_names_packages_and_every_extra_for_users_is_in_all() -> None:
    assert install_command("train") == "pip install peft tensorboard"
    read = requirements()
    everything = set(read.packages("all"))
    for extra in set(read.extras) - {"all", "test", "dev"}:
        assert set(read.packages(extra)) <= everything, extra


def test_a_requirement_that_is_not_met_is_said() -> None:
    assert unmet("pytest>=1") is None
    assert unmet("no-such-package") == "no-such-package is not installed"
    assert unmet("pytest<1") == f"pytest is {pytest.__version__}, not <1"
