"""The text of a chat template as a model keeps it: one template, and nothing in it that changes by the day.

What a template takes from outside is written into its text, so that it is saved with the model, counts in its
digest, and is the same in every tool that reads the model's directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from basereward.errors import ConfigError

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].title() }}: {{ message['content'] }}\n\n{% endfor %}"
)
"""For tokenizers of base models, which carry no template of their own."""

KEEPS_TAIL = "{#- basereward: rewards are read after all that follows a response -#}"
"""In a chat template, a note that the white space after the end of a turn is read, too: models of other tools
were trained to give their rewards there."""

SKIPS_PADDING = "{#- basereward: rewards are read before padding tokens that end a response -#}"
"""In a chat template, a note that the tokens at the end that pad rows, too, are not read, as in transformers:
models whose padding token is the end of a turn were trained to give their rewards before it."""

DATE = "2024-07-26"
"""The day that templates are told by default: a constant, so that rewards are the same every day. It is the
one that Llama 3's template falls back to."""

DIRECTIVE = re.compile(r"(?=(%[-_0^#]?[A-Za-z]))")
"""A part of a format of `strftime`, wherever it may begin."""

PERCENT = "\ue0ff"
"""Stands for `%%` of a format while the others are replaced."""

CLOCK = "strftime_now"
"""The function by which transformers gives templates the time."""


def chosen_template(templates: str | Mapping[str, str] | None, name: str = "default") -> str | None:
    """Return the template of a tokenizer, or the one of a name where it has several; None if it has none.

    Raises:
        ConfigError: When it has several, and none of the name.
    """
    if templates is None or isinstance(templates, str):
        return templates or None
    if name not in templates:
        raise ConfigError(
            f"the tokenizer has no chat template {name!r}, only {', '.join(sorted(templates))}; name one of "
            "these by the backbone's option chat_template"
        )
    return templates[name]


def template_text(templates: str | Mapping[str, str] | None, name: str = "default", date: str = DATE) -> str:
    """Return the text of a tokenizer's template, of one name and for one day; a plain one if it has none.

    Raises:
        ConfigError: As of `chosen_template` and `frozen_template`.
    """
    return frozen_template(chosen_template(templates, name) or PLAIN_TEMPLATE, date)


def check_date(date: str) -> datetime:
    """Return the day of a text such as 2024-07-26.

    Raises:
        ConfigError: When it is none.
    """
    try:
        return datetime.strptime(date, "%Y-%m-%d")
    except ValueError:
        raise ConfigError(
            f"backbone option template_date is {date!r}; it is a day such as {DATE}, year, month and day"
        ) from None


def frozen_template(template: str, date: str = DATE) -> str:
    """Return a template for which it is always the same day; one that asks for no time is unchanged.

    Args:
        template: A chat template.
        date: The day, as YYYY-MM-DD; its time is midnight.

    Raises:
        ConfigError: When the template can't be parsed, or writes something at random.
    """
    day = check_date(date)
    if not _asks_for_time(template):
        return template
    written = {each: day.strftime(each) for each in sorted(set(DIRECTIVE.findall(template)))}
    value = "format"
    for directive, text in [("%%", PERCENT), *written.items(), (PERCENT, "%")]:
        value += f" | replace({directive!r}, {text!r})"
    # The line break goes with the block's end (transformers renders with trim_blocks), so that the template
    # begins a line as it did.
    macro = f"{{%- macro {CLOCK}(format) %}}{{{{ {value} }}}}{{%- endmacro %}}\n"
    notes, rest = _notes_of(template)
    return notes + macro + rest


def with_note(template: str, note: str) -> str:
    """Return a template with one of our notes at its beginning, which changes nothing of what it writes."""
    if note in template:
        return template
    # A note ends with a dash, which would take a template's own white space with it.
    guard = "{% if false %}{% endif %}\n" if template[:1].isspace() else ""
    return note + guard + template


def _notes_of(template: str) -> tuple[str, str]:
    """Return the notes that a template begins with, and the rest."""
    length = 0
    while note := next((n for n in (KEEPS_TAIL, SKIPS_PADDING) if template.startswith(n, length)), None):
        length += len(note)
    return template[:length], template[length:]


@lru_cache(maxsize=64)
def _asks_for_time(template: str) -> bool:
    """Tell whether a template calls `strftime_now` and doesn't define it.

    Raises:
        ConfigError: When it can't be parsed, or writes something at random.
    """
    from jinja2 import nodes
    from jinja2.exceptions import TemplateSyntaxError

    try:
        parsed = _environment().parse(template)
    except (TemplateSyntaxError, RecursionError) as error:
        raise ConfigError(f"the chat template can't be parsed: {error}") from error
    names = [(node.name, node.ctx) for node in parsed.find_all(nodes.Name)]
    filters = {node.name for node in parsed.find_all(nodes.Filter)}
    if "random" in filters or ("lipsum", "load") in names:
        raise ConfigError(
            "the chat template writes something at random, so that rewards would differ each time; take it "
            "out"
        )
    defined = {node.name for node in parsed.find_all(nodes.Macro)}
    defined |= {name for name, context in names if context != "load"}
    return (CLOCK, "load") in names and CLOCK not in defined


def _environment() -> Any:
    """Return an environment that parses what transformers' own parses."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag by which templates mark what an assistant says."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            """Parse the statements of the tag as if it weren't there."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
