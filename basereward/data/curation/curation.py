"""A chain of steps, with a count of what each did and examples of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from basereward.comparison import Comparison
from basereward.config.conversion import Component, did_you_mean
from basereward.data.curation.step import Step
from basereward.errors import ConfigError, DataError
from basereward.plugins.loading import load_class
from basereward.plugins.options import resolved_options
from basereward.plugins.plugin_manager import PluginManager
from basereward.storage.atomic import write_text

_PACKAGE = "basereward.data.curation"

STEPS: Final = {
    "drop-empty": f"{_PACKAGE}.cleaning:DropEmpty",
    "drop-identical": f"{_PACKAGE}.cleaning:DropIdentical",
    "drop-too-long": f"{_PACKAGE}.cleaning:DropTooLong",
    "placeholders": f"{_PACKAGE}.cleaning:Placeholders",
    "near-duplicates": f"{_PACKAGE}.near_duplicates:NearDuplicates",
    "max-per-image": f"{_PACKAGE}.near_duplicates:MaxPerImage",
    "length-bias": f"{_PACKAGE}.preference:LengthBias",
    "hardest-pair": f"{_PACKAGE}.preference:HardestPair",
    "min-gap": f"{_PACKAGE}.preference:MinGap",
    "agreement": f"{_PACKAGE}.preference:Agreement",
    "contamination": f"{_PACKAGE}.contamination:Contamination",
}
"""The steps by name, imported when they are used."""

NUM_EXAMPLES = 3
EXAMPLE_CHARACTERS = 160


@dataclass
class Tally:
    """Counts of the rows of one step, those dropped by kind of reason, and the first few as examples."""

    num_in: int = 0
    num_changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def num_out(self) -> int:
        """Rows that went on to the next step."""
        return self.num_in - self.dropped.total()


class Curation:
    """Steps, one after the other; called with a comparison, it returns what they leave.

    Args:
        steps: The steps in their order.

    Attributes:
        tallies: What each step did since the last `reset`.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)
        self.tallies = [Tally() for _ in self.steps]

    @classmethod
    def of(cls, components: Sequence[Component], plugins: PluginManager) -> Curation:
        """Make the steps that a run file declares.

        Raises:
            ConfigError: When a step or option is unknown, or an option's value is not allowed.
        """
        return cls([_built(component, plugins) for component in components])

    def reset(self) -> None:
        """Forget all rows and counts, before a new pass over the data."""
        for step in self.steps:
            step.reset()
        self.tallies = [Tally() for _ in self.steps]

    def __call__(self, comparison: Comparison) -> Comparison | DataError:
        """Return the comparison that the steps leave, or the reason of the step that dropped it."""
        for step, tally in zip(self.steps, self.tallies, strict=True):
            tally.num_in += 1
            result = step(comparison)
            if isinstance(result, DataError):
                tally.dropped[result.reason.partition(":")[0]] += 1
                _add_example(tally, comparison, {"dropped": result.reason})
                return DataError(f"dropped by {step.name}: {result.reason}", field=result.field)
            if result is not comparison:
                tally.num_changed += 1
                _add_example(tally, comparison, {"changed_to": _shown(result)})
            comparison = result
        return comparison

    def report(self) -> list[dict[str, Any]]:
        """Return the counts and examples of each step."""
        return [
            {
                "step": step.name,
                "num_in": tally.num_in,
                "num_changed": tally.num_changed,
                "dropped": dict(tally.dropped.most_common()),
                "num_out": tally.num_out,
                "examples": tally.examples,
            }
            for step, tally in zip(self.steps, self.tallies, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write the report as JSON, in one go, so that a killed run leaves no half of it."""
        write_text(path, json.dumps(self.report(), ensure_ascii=False, indent=1) + "\n")


def resolved_step(component: Component) -> Component:
    """Return a step with all of its options, checked, defaults included.

    Raises:
        ConfigError: When the step or an option is unknown, or an option's value is not allowed.
    """
    step = _step(component.name)
    return Component(component.name, resolved_options(step, component.options, _subject(component)))


def _built(component: Component, plugins: PluginManager) -> Step:
    step = _step(component.name)
    options = resolved_options(step, component.options, _subject(component))
    wired = (plugins,) if step.takes_plugins else ()
    try:
        built: Step = step(*wired, **options)
    except ValueError as error:
        raise ConfigError(f"{_subject(component)}: {error}") from error
    return built


def _step(name: str) -> type[Step]:
    if name not in STEPS:
        hint = did_you_mean(name, STEPS) or ";"
        raise ConfigError(f"unknown curation step {name!r}{hint} steps: {', '.join(STEPS)}")
    step = load_class(STEPS[name], f"curation step {name!r}")
    assert issubclass(step, Step)
    return step


def _subject(component: Component) -> str:
    return f"curation step {component.name!r}"


def _add_example(tally: Tally, comparison: Comparison, what: dict[str, Any]) -> None:
    if len(tally.examples) < NUM_EXAMPLES:
        tally.examples.append(
            {"id": comparison.id, **comparison.place._asdict(), **_shown(comparison), **what}
        )


def _shown(comparison: Comparison) -> dict[str, Any]:
    """Return the texts of a comparison, cut short."""
    prompt = "\n".join(message.text for message in comparison.prompt)
    return {"prompt": _cut(prompt), "responses": [_cut(response) for response in comparison.responses]}


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + " …"
