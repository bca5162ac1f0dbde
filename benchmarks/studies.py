"""Write the tables and images of docs/study.md and docs/trust.md from the results of small studies kept here.

Run as `python benchmarks/studies.py`; `--take` first takes over what `basereward study` left in runs/studies.
Results lie in benchmarks/results/studies, images in docs/images/study.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from basereward.study import Study, load_study
from basereward.study.report import write_report
from basereward.study.results import RESULTS_FILE, UNIT_SCORES_FILE, Results
from basereward.study.tables import StudyTables

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes" / "studies"
STORED = ROOT / "benchmarks" / "results" / "studies"
DOCUMENTS = [ROOT / "docs" / "study.md", ROOT / "docs" / "trust.md"]
IMAGES = ROOT / "docs" / "images" / "study"


def names() -> list[str]:
    """Return the studies whose results are kept."""
    return sorted(path.name for path in STORED.iterdir())


def stored(name: str) -> tuple[Study, Results]:
    """Return a study and its results."""
    return load_study(RECIPES / f"small-{name}.toml"), Results.load(STORED / name)


def markdown_tables(study: Study, results: Results) -> str:
    """Return a study's tables as Markdown."""
    tables = StudyTables.of(study, results)
    parts = [tables.table().markdown(), "\n".join(f"- {note}" for note in tables.notes())]
    for column in study.columns:
        differences = tables.difference_table(column)
        if differences.rows:
            summary = f"<details><summary>{column}: differences from the baseline, with their tests</summary>"
            parts.append(f"{summary}\n\n{differences.markdown()}\n\n</details>")
    return "\n\n".join(parts)


def document(name: str, content: str) -> None:
    """Write new content between a study's marks, in the document that has them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    for path in DOCUMENTS:
        before, _, rest = path.read_text(encoding="utf-8").partition(begin)
        _, mark, after = rest.partition(end)
        if mark:
            path.write_text(f"{before}{begin}\n\n{content}\n\n{end}{after}", encoding="utf-8")
            return
    raise SystemExit(f"no document has {begin} and {end}")


def take() -> None:
    """Take over the results of studies that have been run."""
    for path in sorted(RECIPES.glob("small-*.toml")):
        if "[axes" not in path.read_text(encoding="utf-8"):
            continue
        output = ROOT / load_study(path).output
        if (output / UNIT_SCORES_FILE).is_file():
            place = STORED / path.stem.removeprefix("small-")
            place.mkdir(parents=True, exist_ok=True)
            for file in (RESULTS_FILE, UNIT_SCORES_FILE):
                shutil.copy(output / file, place / file)


def main() -> None:
    """Write tables and images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--take", action="store_true", help="take over what has been run first")
    if parser.parse_args().take:
        take()
    for name in names():
        study, results = stored(name)
        document(name, markdown_tables(study, results))
        report = ROOT / study.output / "report"
        report.mkdir(parents=True, exist_ok=True)
        write_report(study, results, report)
        IMAGES.mkdir(parents=True, exist_ok=True)
        for image in sorted((report / "plots").glob("*.png")):
            shutil.copy(image, IMAGES / f"{name}-{image.name}")


if __name__ == "__main__":
    main()
