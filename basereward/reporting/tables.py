"""A table for readers: as Markdown, as LaTeX, on the console, and on a page (`templates/table.html`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

FILE_WIDTH = 250
"""Characters of a line of a table that goes to a file or a pipe."""

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
class Table:
    """A table.

    Attributes:
        titles: Of the columns.
        rows: The rows.
        num_labels: Leading columns that are aligned to the left; numbers are aligned to the right.
    """

    titles: Sequence[str]
    rows: Sequence[Row]
    num_labels: int = 1

    def markdown(self) -> str:
        """Return it as Markdown; texts of the data stay text."""
        num_numbers = len(self.titles) - self.num_labels
        lines = [
            f"| {' | '.join(map(_markdown_cell, self.titles))} |",
            "|---" * self.num_labels + "|---:" * num_numbers + "|",
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
        alignment = "l" * self.num_labels + "r" * (len(self.titles) - self.num_labels)
        lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
        lines += [" & ".join(map(latex_text, self.titles)) + r" \\", r"\midrule"]
        for row in self.rows:
            texts = [(latex_text(cell.text), cell.is_bold) for cell in row.cells]
            lines.append(" & ".join(rf"\textbf{{{text}}}" if bold else text for text, bold in texts) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def print(
        self,
        *,
        width: int = FILE_WIDTH,
        show_titles: bool = True,
        styles: Sequence[Literal["", "bold", "dim"]] = (),
    ) -> None:
        """Print it, without its headings.

        Args:
            width: Characters of a line where standard output is no terminal.
            show_titles: Whether the titles of the columns are printed.
            styles: Styles of the columns.
        """
        from rich.table import Table as ConsoleTable
        from rich.text import Text

        table = ConsoleTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_titles)
        for number, title in enumerate(self.titles):
            is_label = number < self.num_labels
            table.add_column(
                Text(title),
                justify="left" if is_label else "right",
                style=styles[number] if styles else "",
                no_wrap=is_label and number < len(self.titles) - 1,
            )
        for row in self.rows:
            if row.style == "heading":
                continue
            row_style = CONSOLE_STYLES.get(row.style, "")
            texts = [Text(cell.text, style="bold" if cell.is_bold else row_style) for cell in row.cells]
            if row.style == "part":
                texts[0] = Text("  ") + texts[0]
            table.add_row(*texts)
        console(width).print(table)


def console(width: int = FILE_WIDTH) -> Console:
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
