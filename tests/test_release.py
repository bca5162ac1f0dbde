"""The facts of a release stand in one version everywhere, and its workflows run targets of make."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import basereward

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a source checkout")


def commands_of(workflow: Path) -> list[str]:
    """Return the commands of a workflow's steps."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    return [step["run"] for job in jobs for step in job.get("steps", []) if "run" in step]


def test_one_version_stands_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {project["version"], citation["version"], basereward.__version__} == {basereward.__version__}
    assert f"\n## {basereward.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)
    assert citation["authors"] == [{"name": "BaseReward contributors"}]
    [paper] = citation["references"]
    assert (paper["url"], len(paper["authors"])) == ("https://arxiv.org/abs/2509.16127", 15)


def test_the_oldest_setuptools_is_the_one_that_setup_py_asks_for() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    oldest = re.search(r"^OLDEST_SETUPTOOLS = (\d+)$", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert oldest is not None
    assert f"setuptools>={oldest[1]}" in build["requires"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_can_be_run_here(workflow: Path) -> None:
    for command in commands_of(workflow):
        if command == ".ci/run":
            continue
        assert command.startswith("make "), command
        # What GitHub would fill in.
        words = re.sub(r"\$\{\{.*?\}\}", "v0.1.0", command).split()
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_there_is_a_workflow_for_tests_wheels_documents_and_publishing() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "publish", "test", "wheels"]


def test_the_demo_installs_nothing_for_development(tmp_path: Path) -> None:
    def planned(target: str) -> str:
        words = ["make", target, f"VENV={tmp_path}/none", "--dry-run", "--no-print-directory"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    of_development = "packages('dev')"
    assert of_development not in planned("demo")
    assert of_development in planned("test")
    # One environment does for both: what the one has installed, the other finds.
    assert set(planned("demo").splitlines()[:-1]) <= set(planned("test").splitlines())
