"""Count the package at revisions: files, lines, probes of attributes, words that were replaced.

Run as `python benchmarks/structure.py OLD NEW [--output FILE]`, where both are revisions of git. Lines are
those of the Python files in `basereward/`; lines of code are those without blank lines, comments, docstrings
and imports. Probes are calls of `getattr` and `hasattr`. Words are the
identifiers that `tests/test_names.py` bans, wherever a file gives one a value, and docstrings that begin with
What, Who, How, Which or Where.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from test_names import BANNED, SYNONYMS, identifiers  # noqa: E402


def files_of(revision: str) -> dict[str, str]:
    """Return the text of each Python file of the package at a revision."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    paths = git("ls-tree", "-r", "--name-only", revision, "basereward").splitlines()
    return {path: git("show", f"{revision}:{path}") for path in paths if path.endswith(".py")}


def lines_of_code(text: str, tree: ast.Module) -> int:
    """Count lines that are neither blank nor a comment, a docstring or an import."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            text_node = node.body[0]
            left_out.update(range(text_node.lineno, (text_node.end_lineno or text_node.lineno) + 1))
    return sum(
        number not in left_out and bool(line.strip()) and not line.strip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
    )


def counts(files: dict[str, str]) -> dict[str, Any]:
    """Return the counts of files by their text."""
    lines = {path: text.count("\n") for path, text in files.items()}
    probes = words = riddles = code = 0
    for text in files.values():
        tree = ast.parse(text)
        code += lines_of_code(text, tree)
        names = [name for _, name in identifiers(tree)]
        words += sum(name in BANNED or any(part in name.lower() for part in SYNONYMS) for name in names)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                probes += node.func.id in ("getattr", "hasattr")
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                riddles += bool(re.match(r"(What|Who|How|Which|Where)\b", ast.get_docstring(node) or ""))
    top = [path for path in files if path.count("/") == 1]
    return {
        "files": len(files),
        "modules at the top": len(top),
        "lines": sum(lines.values()),
        "lines of code": code,
        "median lines of a file": statistics.median(lines.values()),
        "largest file": "{} ({})".format(*max(lines.items(), key=lambda item: item[1])),
        "getattr and hasattr": probes,
        "identifiers that were replaced": words,
        "docstrings that begin with What, Who, How, Which, Where": riddles,
    }


def main() -> None:
    """Print the counts of both revisions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", metavar="OLD NEW", nargs=2)
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    args = parser.parse_args()
    results = {revision: counts(files_of(revision)) for revision in args.revisions}
    old, new = results.values()
    for name in old:
        print(f"| {name} | {old[name]} | {new[name]} |")
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
