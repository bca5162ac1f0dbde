"""The site of the documents: every page is in its navigation, every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not (ROOT / ".ci" / "site.py").is_file(), reason="not in a source distribution"),
]


def test_the_sources_of_the_site_have_every_page_and_no_link_out_of_it(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / ".ci" / "site.py", "--sources", "--output", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    docs = tmp_path / "site" / "docs"
    pages = {path.name for path in docs.glob("*.md")}
    kept = [path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")]
    assert pages == {"index.md", *(f"{path.stem}.md" for path in kept)}
    for page in docs.glob("*.md"):
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        assert not [link for link in links if not (docs / link).exists()], page.name
