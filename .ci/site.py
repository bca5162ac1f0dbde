"""Build the site of the documents: README as its first page, docs/, and the API from docstrings.

Run by `make site`, with zensical and mkdocstrings-python installed. A notebook becomes a page. Links to files
outside of docs/ become links to the repository; a link or a name that leads nowhere ends the build.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = Path(__file__).with_name("zensical.toml")
LINK = re.compile(r"(\]\(|src=\")(?!https?:|mailto:|#)([^)\"#\s]+)")


def pages(nav: list[dict[str, object]]) -> list[str]:
    """Return the files of the navigation."""
    found = []
    for entry in nav:
        for value in entry.values():
            found += pages(value) if isinstance(value, list) else [str(value)]
    return found


def stage(output: Path) -> None:
    """Write the sources of the site, and its settings beside them."""
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    repository = settings["project"]["repo_url"]
    sources = {path.name: path for path in sorted((ROOT / "docs").glob("*.md"))}
    sources |= {f"{path.stem}.md": path for path in (ROOT / "docs").glob("*.ipynb")}
    sources["index.md"] = ROOT / "README.md"
    missing = set(sources) ^ set(pages(settings["project"]["nav"]))
    if missing:
        raise SystemExit(f"in docs/ or in the navigation of {SETTINGS.name}, not in both: {sorted(missing)}")
    docs = output / "docs"
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", docs / "images")
    for name, path in sources.items():
        (docs / name).write_text(_linked(path, repository), encoding="utf-8")
    text = SETTINGS.read_text(encoding="utf-8").replace('paths = [".."]', f'paths = ["{ROOT}"]')
    (output / SETTINGS.name).write_text(text, encoding="utf-8")


def _linked(document: Path, repository: str) -> str:
    """Return a document with the links of the site."""

    def linked(match: re.Match[str]) -> str:
        return match[1] + _target(document, match[2], repository)

    text = document.read_text(encoding="utf-8")
    return LINK.sub(linked, notebook_text(text) if document.suffix == ".ipynb" else text)


def notebook_text(text: str) -> str:
    """Return a notebook as Markdown."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts) + "\n"


def _target(document: Path, link: str, repository: str) -> str:
    """Return a link of a document as it is on the site."""
    target = (document.parent / link).resolve()
    if not target.exists():
        raise SystemExit(f"{document.name} links to {link}, which is not there")
    docs = ROOT / "docs"
    if target == ROOT / "README.md":
        return "index.md"
    if target.is_relative_to(docs) and target != docs:
        place = target.relative_to(docs)
        return (place.with_suffix(".md") if place.suffix == ".ipynb" else place).as_posix()
    kind = "tree" if target.is_dir() else "blob"
    return f"{repository}/{kind}/main/{target.relative_to(ROOT).as_posix()}"


def main() -> int:
    """Stage and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--sources", action="store_true", help="write the sources of the site alone")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    stage(output)
    if arguments.sources:
        return 0
    # The tool beside this interpreter.
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
    return subprocess.run([*command, "-f", output / SETTINGS.name], cwd=output, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
