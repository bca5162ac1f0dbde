"""One table in four formats: what each shows, and what each escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from basereward.reporting.html import environment
from basereward.reporting.tables import Cell, Row, Table, markdown_code, markdown_text, print_notes


def html(table: Table) -> str:
    return str(environment().get_template("table.html").module.table(table))  # type: ignore[attr-defined]


@pytest.fixture
def table() -> Table:
    rows = [
        Row.of("All <i>", style="heading"),
        Row([Cell("a|b"), Cell("5 ± 1 †", is_bold=True)], "official"),
        Row([Cell("x_1"), Cell("< 1 & 2", bar=(0.25, 0.5))], "part"),
    ]
    return Table(["<2 & 3", "&lt;"], rows)


def test_markdown_shows_every_text_as_it_is(table: Table) -> None:
    assert table.markdown().splitlines() == [
        "| <2 & 3 | &amp;lt; |",
        "|---|---:|",
        "| **All &lt;i>** |  |",
        "| a\\|b | **5 ± 1 †** |",
        "| – x_1 | < 1 & 2 |",
    ]


def test_latex_escapes_its_signs() -> None:
    table = Table(["a|b", "x_1"], [Row([Cell("<2 & 3"), Cell("5 ± 1 †", is_bold=True)])])
    assert table.latex().splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a|b & x\_1 \\",
        r"\midrule",
        r"$<$2 \& 3 & \textbf{5 $\pm$ 1 $^\dagger$} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_page_has_headings_bold_cells_and_bars(table: Table) -> None:
    assert html(table).split("\n") == [
        '<div class="table"><table>',
        '<thead><tr><th class="label">&lt;2 &amp; 3</th><th>&amp;lt;</th></tr></thead>',
        "<tbody>",
        '<tr class="heading"><td class="label" colspan="2">All &lt;i&gt;</td></tr>',
        '<tr class="official"><td class="label">a|b</td><td><b>5 ± 1 †</b></td></tr>',
        '<tr class="part"><td class="label">x_1</td><td>'
        '<span class="bar"><i style="left:25.0%;width:25.0%"></i><b></b></span> &lt; 1 &amp; 2</td></tr>',
        "</tbody>",
        "</table></div>",
        "",
    ]


def test_a_page_folds_rows_that_are_categories_or_variants() -> None:
    rows = [Row.of("Official", style="heading"), Row.of("a", "1", style="official")]
    rows += [Row.of("Variants", style="heading"), Row.of("b", "2", style="variant")]
    table = Table(["metric", "score"], rows)
    assert [(group.heading, group.is_folded) for group in table.groups] == [
        ("Official", False),
        ("Variants", True),
    ]
    assert html(table).count('<tbody class="folded">') == 1


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


WORDS = "some words that are wrapped where they are too many for the line that they stand on"


@pytest.mark.usefixtures("narrow")
def test_a_line_of_a_pipe_has_80_characters_and_text_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    Table(["name", "number", "text"], [Row.of("n" * 30, "1", WORDS)], has_text=True).print()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(line[40:].split()) for line in lines[1:]) == WORDS


@pytest.mark.usefixtures("narrow")
def test_rows_that_are_too_wide_are_put_one_below_the_other_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    titles = [f"column {number}" for number in range(9)]
    rows = [Row.of("first", *["123,456"] * 7, ""), Row.of("part", *["7"] * 8, style="part")]
    Table(titles, rows).print()
    assert capsys.readouterr().out.splitlines() == [
        "first",
        *(f"  column {number}  123,456" for number in range(1, 8)),
        "  part",
        *(f"    column {number}  7" for number in range(1, 9)),
    ]


@pytest.mark.usefixtures("narrow")
def test_notes_are_wrapped_and_empty_ones_stay(capsys: pytest.CaptureFixture[str]) -> None:
    print_notes([WORDS, "", "short"])
    assert capsys.readouterr().out.splitlines() == [
        "some words that are wrapped where they are too many for the line that they stand",
        "  on",
        "",
        "short",
    ]


def test_the_console_shows_brackets_and_indents_parts(
    table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(["[red]a", "b"], table.rows)
    table.print(show_titles=True)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[red]a        b", "a|b     5 ± 1 †", "  x_1   < 1 & 2"]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<script>a</script>", "&lt;script>a&lt;/script>"),
        ("<!-- a -->", "&lt;!-- a -->"),
        ("p < 0.05 & q", "p < 0.05 & q"),
        ("&lt;b&#62;", "&amp;lt;b&amp;#62;"),
        ("![a](http://b)", "![a]&#40;http://b)"),
        ("`code`\n# two", "&#96;code&#96; # two"),
        ("<https://a.b>", "&lt;https://a.b>"),
        ("# a", "&#35; a"),
        ("- 0.5", "&#45; 0.5"),
        ("-0.5", "-0.5"),
        ("--", "&#45;-"),
        ("--help", "--help"),
        ("12. a", "&#49;2. a"),
        ("~~~ html", "&#126;~~ html"),
        ("[a]: http://b", "&#91;a]: http://b"),
        ("\\<b>", "&#92;&lt;b>"),
        ("C:\\a\\", "C:\\a&#92;"),
    ],
)
def test_markdown_begins_nothing_in_a_text(text: str, escaped: str) -> None:
    assert markdown_text(text) == escaped


PIECES = [
    "<b>",
    "</b>",
    "<!--",
    "&lt;",
    "&",
    "`",
    "[",
    "]",
    "(",
    ")",
    "!",
    "\\",
    "|",
    "a",
    " ",
    "\n",
    "http://b",
]
PIECES += ["#", ">", "-", "1.", "~~~", ":", "=", "&#60;", "<", "/", "\t", "\u2028", "    ", "script", "@"]
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
OF_REPORTS = {"bullet_list", "list_item", "paragraph", "table", "thead", "tbody", "tr", "th", "td"}
"""The elements that a report's lists and tables are made of."""


def leaves(tokens: list[Token]) -> list[Token]:
    """Return the tokens of a document that hold others, and those within."""
    return [leaf for token in tokens for leaf in (token, *leaves(token.children or []))]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_reader_of_markdown_sees_the_text_and_no_markup_of_it(text: str) -> None:
    whole = f"- {markdown_text(text)}\n\n{Table([text, 'n'], [Row.of(text, '7')]).markdown()}"
    tokens = leaves(MARKDOWN.parse(whole))
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert kinds - {"inline", "text", "text_special"} <= OF_REPORTS
    inlines = [token for token in tokens if token.type == "inline"]
    shown = ["".join(leaf.content for leaf in token.children or []).split() for token in inlines]
    words = text.split()
    assert shown == [*([words] if words else []), words, ["n"], words, ["7"]]


@pytest.mark.parametrize(
    ("text", "code"),
    [("a", "`a`"), ("a`b", "``a`b``"), ("``a", "``` ``a ```"), ("a\nb", "`a b`"), ("", "`  `")],
)
def test_a_code_span_holds_any_text(text: str, code: str) -> None:
    assert markdown_code(text) == code
