"""docs/data.md says what is read, refused and left out of a row, as the code has it.

`python tests/docs/test_data_docs.py` writes the table anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from basereward.comparison import FIELDS
from basereward.data import FileDataset
from basereward.data.columns import IGNORED_COLUMNS
from basereward.data.formats import signatures
from basereward.data.pair_layouts import COMMON_COLUMNS
from basereward.message import IGNORED_MESSAGE_KEYS, IGNORED_PART_KEYS, PART_KEYS, TEMPLATE_KEYS
from basereward.plugins import PluginManager

DOC = Path(__file__).parents[2] / "docs" / "data.md"
BEGIN, END = "<!-- written by tests/docs/test_data_docs.py -->\n", "<!-- end -->\n"


def names(columns: object) -> str:
    return ", ".join(f"`{name}`" for name in columns)  # type: ignore[attr-defined]


def meanings(columns: Mapping[str, str]) -> str:
    return "; ".join(f"`{name}` {text}" for name, text in columns.items())


def table() -> str:
    plugins = PluginManager()
    rows = [
        ("a row of `basereward`", "read", names(FIELDS)),
        ("every row of the pairs below", "read", meanings(COMMON_COLUMNS)),
    ]
    published = []
    for name in plugins.names("dataset"):
        dataset = plugins.load("dataset", name)
        assert issubclass(dataset, FileDataset)
        if dataset.name:
            published.append(f"`{name}`: {names(dataset.columns)}")
        elif name == "openrlhf":
            rows.append(("`openrlhf`", "read", "the columns that its options name"))
        elif name != "basereward":
            marks = " or ".join(f"({names(fields)})" for fields in signatures(dataset))
            own = {key: text for key, text in dataset.columns.items() if COMMON_COLUMNS.get(key) != text}
            rows.append((f"`{name}`, recognized by {marks}", "read", meanings(own)))
    rows.append(("a row of a published data set", "read", "; ".join(published)))
    rows += [
        ("every row", f"left out: they {why}", names(columns)) for why, columns in IGNORED_COLUMNS.items()
    ]
    rows += [
        (
            "a row of a published data set",
            "left out, with a warning",
            "columns that belong to no question or answer in any format",
        ),
        ("every row", "**refused**", "any other column with a value, unless `ignored_columns` names it"),
        ("a message", "read", names(("role", "content"))),
        ("a message", "passed to the chat template", meanings(TEMPLATE_KEYS)),
        ("a message", "left out", names(sorted(IGNORED_MESSAGE_KEYS))),
        ("a message", "**refused**", "any other key with a value; keys that the chat template doesn't read"),
        (
            "the message of a response",
            "**refused**",
            "everything but its text: tool calls and reasoning can't be scored",
        ),
        *((f"a part of type `{kind}`", "read", names(keys)) for kind, keys in PART_KEYS.items()),
        ("a part", "left out", names(sorted(IGNORED_PART_KEYS))),
        ("a part", "**refused**", "any other key with a value, such as `max_pixels`; other types"),
    ]
    lines = ["| where | | keys |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "".join(line + "\n" for line in lines)


def test_the_document_has_the_table_of_the_code() -> None:
    written = DOC.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert written == table(), "run python tests/docs/test_data_docs.py"


if __name__ == "__main__":
    before, _, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
    DOC.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
