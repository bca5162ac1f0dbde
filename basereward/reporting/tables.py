"""A table for readers: as Markdown, as LaTeX, on the console, and on a page (`templates/table.html`)."""

from __future__ import annotations

import re
import shutil
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

WIDTH = 80
"""Characters of a line of a table that goes to a file or a pipe."""

MIN_TEXT = 12
"""Characters that a last column of text needs at least, to be wrapped rather than put below the others."""

CONSOLE_STYLES = {"official": "bold", "variant": "dim"}
"""Styles of rich for the styles of rows."""

ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|`|(?<=\])\(|\\(?=[!-/:-@\[-`{-~]|$)")
"""Characters with which Markdown begins HTML, an entity, code, a link's address, and an escape."""

LEADING = re.compile(
    r"#{1,6}(?!\S)|[-+*](?!\S)|[>\[]|~~~|[0-9]{1,9}[.)](?!\S)|(?:- ?){2,}$|(?:\* ?){3,}$|(?:_ ?){3,}$"
)
"""A line's beginning that Markdown takes for a heading, a list, a quotation, a fence, a rule, or the
definition of a link. Two dashes are a rule with the dash of the list item that they are in."""

ENTITIES = {"<": "&lt;", "&": "&amp;"}

LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "–": "--",
    "<": "$<$",
    "λ": r"$\lambda$",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its text.
        is_bold: Whether it is set in bold.
        bar: Ends of an interval within 0 to 1, which a page draws before the text; None for none.
    """

    text: str
    is_bold: bool = False
    bar: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        cells: As many as the table has columns; one for a heading.
        style: "heading" for a heading of the rows below, "part" for a part of the row above, which is
            indented; else the class that colours it on a page.
    """

    cells: Sequence[Cell]
    style: str = ""

    @classmethod
    def of(cls, *texts: str, style: str = "") -> Row:
        """Return a row of plain cells."""
        return cls([Cell(text) for text in texts], style)

    @property
    def texts(self) -> list[str]:
        """The texts of the cells."""
        return [cell.text for cell in self.cells]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a table below one heading.

    Attributes:
        heading: The heading; empty for rows before the first one.
        rows: The rows.
        is_folded: Whether a page shows the heading alone until it is asked for the rows.
    """

    heading: str
    rows: Sequence[Row]
    is_folded: bool = False


FOLDED_STYLES = ("category", "variant")
"""Styles of rows that a page folds below their heading."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        titles: Of the columns.
        rows: The rows.
        num_labels: Leading columns that are aligned to the left; numbers are aligned to the right.
        has_text: Whether the last column is text, aligned to the left, which may be wrapped.
    """

    titles: Sequence[str]
    rows: Sequence[Row]
    num_labels: int = 1
    has_text: bool = False

    @property
    def groups(self) -> list[Group]:
        """The rows by their headings."""
        begun: list[tuple[str, list[Row]]] = [("", [])]
        for row in self.rows:
            if row.style == "heading":
                begun.append((row.cells[0].text, []))
            else:
                begun[-1][1].append(row)
        return [
            Group(heading, rows, bool(heading) and all(row.style in FOLDED_STYLES for row in rows))
            for heading, rows in begun
            if heading or rows
        ]

    def markdown(self) -> str:
        """Return it as Markdown; texts of the data stay text."""
        num_numbers = len(self.titles) - self.num_labels - self.has_text
        lines = [
            f"| {' | '.join(map(_markdown_cell, self.titles))} |",
            "|---" * self.num_labels + "|---:" * num_numbers + "|---" * self.has_text + "|",
        ]
        for row in self.rows:
            is_heading = row.style == "heading"
            texts = [_markdown_cell(cell.text, cell.is_bold or is_heading) for cell in row.cells]
            if row.style == "part":  # Markdown drops the spaces of an indentation
                texts[0] = f"– {texts[0]}"
            lines.append(f"| {' | '.join([*texts, *[''] * (len(self.titles) - len(texts))])} |")
        return "\n".join(lines)

    def latex(self) -> str:
        """Return it as LaTeX, with the rules of booktabs."""
        num_numbers = len(self.titles) - self.num_labels - self.has_text
        alignment = "l" * self.num_labels + "r" * num_numbers + "l" * self.has_text
        lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
        lines += [" & ".join(map(latex_text, self.titles)) + r" \\", r"\midrule"]
        for row in self.rows:
            texts = [(latex_text(cell.text), cell.is_bold) for cell in row.cells]
            lines.append(" & ".join(rf"\textbf{{{text}}}" if bold else text for text, bold in texts) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def print(
        self,
        *,
        width: int = WIDTH,
        show_titles: bool = True,
        styles: Sequence[Literal["", "bold", "dim"]] = (),
    ) -> None:
        """Print it, without its headings; where its columns don't fit the width, a row as lines of its own.

        Args:
            width: Characters of a line where standard output is no terminal.
            show_titles: Whether the titles of the columns are printed.
            styles: Styles of the columns.
        """
        from rich.table import Table as ConsoleTable
        from rich.text import Text

        to = console(width)
        if not self._fits(to.width, show_titles=show_titles):
            self._print_rows(to)
            return
        table = ConsoleTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_titles)
        for number, title in enumerate(self.titles):
            is_last = number == len(self.titles) - 1
            is_label = number < self.num_labels or (is_last and self.has_text)
            table.add_column(
                Text(title),
                justify="left" if is_label else "right",
                style=styles[number] if styles else "",
                no_wrap=not is_last,
                overflow="fold",
            )
        for row in self.rows:
            if row.style == "heading":
                continue
            row_style = CONSOLE_STYLES.get(row.style, "")
            texts = [Text(cell.text, style="bold" if cell.is_bold else row_style) for cell in row.cells]
            if row.style == "part":
                texts[0] = Text("  ") + texts[0]
            table.add_row(*texts)
        to.print(table)

    def _fits(self, width: int, *, show_titles: bool) -> bool:
        """Tell whether the columns stand beside each other, the last one perhaps wrapped if it is text."""
        from rich.cells import cell_len

        rows = [row.texts for row in self.rows if row.style != "heading"]
        columns = zip(*([self.titles] if show_titles else []), *rows, strict=True)
        *others, last = [max(map(cell_len, column)) for column in columns] or [0]
        if self.has_text or self.num_labels == len(self.titles):
            last = min(last, MIN_TEXT)
        indent = 2 if any(row.style == "part" for row in self.rows) else 0
        needed: int = sum(others) + 2 * len(others) + last + indent
        return needed <= width

    def _print_rows(self, to: Console) -> None:
        """Print each row as its label and a line for each other cell that isn't empty."""
        from rich.padding import Padding
        from rich.text import Text

        length = max(map(len, self.titles[1:]), default=0)
        for row in self.rows:
            if row.style == "heading":
                continue
            first, *cells = row.cells
            indent = 2 if row.style == "part" else 0
            style = CONSOLE_STYLES.get(row.style, "")
            to.print(
                Padding(
                    Text(first.text, style="bold" if first.is_bold else style),
                    (0, 0, 0, indent),
                    expand=False,
                )
            )
            for title, cell in zip(self.titles[1:], cells, strict=True):
                if cell.text:
                    text = Text(f"{title:<{length}}  {cell.text}" if length else cell.text)
                    to.print(Padding(text, (0, 0, 0, indent + 2), expand=False))


def print_notes(lines: Iterable[str]) -> None:
    """Print lines of text on standard output, wrapped where they are longer than the terminal is wide."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        print("\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)))


def console(width: int = WIDTH) -> Console:
    """Return a console on standard output, at least `width` characters wide where that is no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(width, console.width))


def markdown_text(text: str) -> str:
    """Return a text of one line in which Markdown begins nothing but emphasis: no HTML, no code, no links."""
    text = " ".join(text.split())
    begun = LEADING.match(text)
    first, rest = (text[0], text[1:]) if begun else ("", text)
    return "".join(map(_entity, first)) + ACTIVE.sub(lambda match: _entity(match[0]), rest)


def _entity(sign: str) -> str:
    return ENTITIES.get(sign, f"&#{ord(sign)};")


def markdown_code(text: str) -> str:
    """Return a text as a code span of Markdown, whatever backticks it holds."""
    text = " ".join(text.splitlines())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def latex_text(text: str) -> str:
    """Return a text that LaTeX shows as it is."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def _markdown_cell(text: str, is_bold: bool = False) -> str:
    text = markdown_text(text).replace("|", "\\|")
    return f"**{text}**" if is_bold else text
