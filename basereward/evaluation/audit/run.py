"""Audit a model: put its rows to it as they are, with something taken away, edited and changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from basereward.comparison import Comparison
from basereward.data import Dataset
from basereward.errors import ConfigError, DataError
from basereward.evaluation.audit import measures
from basereward.evaluation.audit.findings import Finding, corrected
from basereward.evaluation.audit.pairs import WHOLE, Pairs, sampled, trial_of
from basereward.evaluation.audit.prompt_edits import ABLATIONS, IMAGE_CHANGES, PromptEdit, has_images
from basereward.evaluation.audit.response_edits import SHORTCUTS, STEADY, TEXT_CHANGES, edited
from basereward.evaluation.audit.results import STATES, Audit, Steadiness
from basereward.evaluation.audit.trials import Cost, Rewards, Trial, score_trials
from basereward.evaluation.metrics import metrics_of
from basereward.protocols import Scorer
from basereward.reporting.progress import progress_bar
from basereward.stats.calibration import temperature_of

MAX_ROWS = 500
"""Rows of an audit, unless it is told otherwise."""

NUM_EXACT = 200
"""Rows on which order, batch and precision are tried, each of which is one more scoring."""

ALONE, REVERSED, PRECISION, TEXT_ALONE = "pair alone", "pair reversed", "other precision", "text alone"

Measure = TypeVar("Measure")

TOO_FEW = f"fewer than {measures.MIN_ROWS} rows have it"


def audit(
    model: Scorer[list[float]],
    comparisons: Iterable[Comparison | Mapping[str, Any]],
    *,
    text_model: Scorer[list[float]] | None = None,
    text_model_name: str = "the model without images",
    max_rows: int = MAX_ROWS,
    batch_size: int = 8,
    seed: int = 0,
    shares: bool = True,
    progress: bool = False,
) -> Audit:
    """Measure what a model looks at, what it rewards beside quality, and how stable it is.

    One pair is taken from each row: a best response and one of the worst. All edits of these two are scored
    in one tree with them, so that their prompt is computed once, unless the model compares responses.

    Args:
        model: A model of `load_model`, or another `basereward.protocols.Scorer`.
        comparisons: Comparisons with ranks, or rows of any layout, that the model was not trained on.
        text_model: A text-only model, which finds the pairs that need no image; None for the model itself
            without images.
        text_model_name: Name of the text-only model in the report.
        max_rows: Rows that are drawn from the comparisons.
        batch_size: Comparisons in a forward pass.
        seed: Seed of the draws: rows, phrases, order.
        shares: Whether edits share a tree; False costs more and gives the same, for comparison.
        progress: Whether to show progress bars on standard error.

    Raises:
        DataError: When no row could be scored, or all pairs have equal rewards; for a bad row of a `Dataset`
            whose `on_bad_row` is "fail".
        ConfigError: When `max_rows` is below 1.
    """
    if max_rows < 1:
        raise ConfigError(f"max_rows is a number of rows >= 1, not {max_rows}")
    start = time.perf_counter()
    rows, rejected, num_read = sampled(comparisons, max_rows=max_rows, seed=seed)
    if rejected and isinstance(comparisons, Dataset) and comparisons.on_bad_row == "fail":
        raise rejected[0]
    if not rows:
        first = f"; {len(rejected)} were rejected, the first: {rejected[0]}" if rejected else ""
        raise DataError(f"there is no row with a better and a worse response{first}")
    run = _Run(model, rows, batch_size, seed, shares, progress)
    run.score_all()
    if text_model is not None:
        run.score_text_alone(text_model)
    return run.audited(text_model_name, rejected, num_read, start)


class _Run:
    """The trials of an audit, and what follows of their rewards."""

    def __init__(
        self,
        model: Scorer[list[float]],
        rows: Sequence[Comparison],
        batch_size: int,
        seed: int,
        shares: bool,
        progress: bool,
    ) -> None:
        self.model, self.rows, self.batch_size, self.seed = model, rows, batch_size, seed
        self.shares, self.progress = shares, progress
        self.rewards = Rewards()
        self.skipped: dict[str, str] = {}

    def score_all(self) -> None:
        """Score every trial, part by part."""
        self._score("pairs and their edits", self._edits(), shares=self.shares)
        for name, edit in ABLATIONS.items():
            if name == "prompt out" and len({_text(row) for row in self.rows}) == 1:
                self.skipped[name] = "all prompts have the same text"
                continue
            self._score(name, self._prompts(name, edit))
        for name, edit in IMAGE_CHANGES.items():
            self._score(name, self._prompts(name, edit))
        exact = range(min(NUM_EXACT, len(self.rows)))
        self._score(ALONE, (trial_of(self.rows, row, ALONE) for row in exact), batch_size=1)
        self._score(
            REVERSED,
            (trial_of(self.rows, row, REVERSED, responses=self.rows[row].responses[::-1]) for row in exact),
        )
        with _other_precision(self.model) as reason:
            if reason:
                self.skipped["precision"] = reason
            else:
                self._score(PRECISION, (trial_of(self.rows, row, PRECISION) for row in exact))

    def score_text_alone(self, text_model: Scorer[list[float]]) -> None:
        """Score the pairs by a model of text alone."""
        trials = (
            trial_of(self.rows, row, TEXT_ALONE, prompt=comparison.without_images().prompt)
            for row, comparison in enumerate(self.rows)
            if has_images(comparison)
        )
        self._score(TEXT_ALONE, trials, model=text_model)

    def _score(
        self,
        part: str,
        trials: Iterable[Trial],
        *,
        shares: bool = False,
        batch_size: int | None = None,
        model: Scorer[list[float]] | None = None,
    ) -> None:
        with progress_bar(f"auditing: {part}", None, is_shown=self.progress) as advance:
            score_trials(
                model or self.model,
                trials,
                self.rewards,
                part=part,
                batch_size=batch_size or self.batch_size,
                rows=self.rows,
                shares=shares,
                advance=advance,
            )

    def _edits(self) -> Iterator[Trial]:
        """Yield the trials of a row's own prompt: the pair, its edits, and its changes."""
        for row, comparison in enumerate(self.rows):
            yield trial_of(self.rows, row, WHOLE)
            assert comparison.ranks is not None
            for which, rank in (("better", 0), ("worse", 1)):
                text = comparison.responses[comparison.ranks.index(rank)]
                for name, edit in SHORTCUTS.items():
                    texts = edited(edit, text, seed=self.seed, row=row, name=name)
                    if texts is not None and texts[0] != texts[1]:
                        if measures.is_turned(row, which):
                            texts = texts[::-1]
                        yield trial_of(self.rows, row, measures.side(name, which), responses=texts)
            for name, edit in TEXT_CHANGES.items():
                changed = [
                    edited(edit, text, seed=self.seed, row=row, name=f"{name} {at}")
                    for at, text in enumerate(comparison.responses)
                ]
                if any(changed):
                    both = tuple(
                        text if texts is None else texts[1]
                        for text, texts in zip(comparison.responses, changed, strict=True)
                    )
                    yield trial_of(self.rows, row, name, responses=both)

    def _prompts(self, name: str, edit: PromptEdit) -> Iterator[Trial]:
        """Yield the trials of another prompt; one whose image can't be read is listed."""
        for row in range(len(self.rows)):
            try:
                prompt = edit.apply(row, self.rows)
            except DataError as error:
                self.rewards.errors[row, name] = self.rows[row].place.locate(error)
                continue
            if prompt is not None:
                yield trial_of(self.rows, row, name, scene=name, prompt=prompt)

    def audited(
        self, text_model_name: str, rejected: Sequence[DataError], num_read: int, start: float
    ) -> Audit:
        """Return what follows of the rewards."""
        pairs = Pairs(self.rows, self.rewards)
        scored = pairs.scored()
        metrics = metrics_of(scored)
        is_comparative = self.model.is_comparative
        ablations = self._measured(ABLATIONS, lambda name: measures.ablation(pairs, name))
        shortcuts = self._measured(
            SHORTCUTS, lambda name: measures.bought(pairs, name, is_comparative=is_comparative)
        )
        by_text = TEXT_ALONE if TEXT_ALONE in self.rewards.costs else "image out"
        failure, text_findings = measures.shortcut_failure(pairs, pairs.margin(by_text), text_model_name)
        slopes, slope_findings = measures.regression(pairs)
        if len(pairs.numbers) < measures.SLOPE_ROWS:
            self.skipped["regression"] = f"it takes {measures.SLOPE_ROWS} rows to find a bias reliably"
        stability = self._measured(
            (*TEXT_CHANGES, *IMAGE_CHANGES), lambda name: measures.steadiness(pairs, name)
        )
        exact = {
            "batch": measures.steadiness(pairs, ALONE),
            "order": measures.steadiness(pairs, REVERSED, is_reversed=True),
            "precision": measures.steadiness(pairs, PRECISION),
        }
        stability |= {name: steady for name, steady in exact.items() if steady is not None}
        temperature = temperature_of(pairs.whole)
        findings = [
            *measures.ablation_findings(ablations),
            *text_findings,
            *measures.shortcut_findings(shortcuts),
            *measures.position_findings(pairs, ALONE, REVERSED),
            *measures.verdict_findings(pairs),
            *slope_findings,
            *_stability_findings(stability),
        ]
        if is_comparative:
            self.skipped["calibration"] = "rewards that compare responses are no log-odds"
        else:
            findings.append(measures.calibration_finding(pairs, metrics, temperature))
        order = {state: place for place, state in enumerate(STATES)}
        findings = sorted(corrected(findings), key=lambda finding: order[finding.state])
        alone = self.rewards.costs[ALONE]
        once = Cost(
            len(self.rows),
            2 * len(self.rows),
            round(alone.num_tokens / max(1, alone.num_forests) * len(self.rows)),
        )
        return Audit(
            findings=findings,
            num_rows=len(pairs.numbers),
            num_read=num_read,
            spread=pairs.spread,
            metrics=metrics,
            pairs=scored,
            ablations=ablations,
            shortcuts=shortcuts,
            slopes=slopes,
            stability=stability,
            shortcut_failure=failure,
            temperature=temperature,
            confidence=measures.confidence_of(pairs),
            coverage=measures.coverage_of(pairs),
            costs=self.rewards.costs,
            skipped=self.skipped,
            rejected=[*rejected, *self.rewards.errors.values()],
            seconds=time.perf_counter() - start,
            once=once,
        )

    def _measured(self, names: Iterable[str], measure: Callable[[str], Measure | None]) -> dict[str, Measure]:
        """Return the measures that could be taken, and note the others."""
        measures_of: dict[str, Measure] = {}
        for name in names:
            if name in self.skipped:
                continue
            if (measured := measure(name)) is None:
                self.skipped[name] = TOO_FEW
            else:
                measures_of[name] = measured
        return measures_of


def _text(comparison: Comparison) -> str:
    return "\n".join(message.text for message in comparison.prompt)


def _stability_findings(stability: Mapping[str, Steadiness]) -> list[Finding]:
    advice = {
        **{name: edit.advice for name, edit in TEXT_CHANGES.items()},
        **dict.fromkeys(IMAGE_CHANGES, STEADY),
        "order": "Average the rewards of both orders, or draw the order in training.",
        "precision": "Score in the precision that the model was evaluated in.",
    }
    changes = {name: name for name in advice} | {
        "order": "the order of the responses",
        "precision": "bf16 in place of fp32, or the other way",
    }
    findings = [
        measures.stability_finding(name, changes[name], stability[name], text)
        for name, text in advice.items()
        if name in stability
    ]
    if "batch" in stability:
        findings.append(measures.batch_finding(stability["batch"]))
    return findings


@contextmanager
def _other_precision(model: Scorer[list[float]]) -> Iterator[str]:
    """Have a model score in bf16 where it scores in fp32, and the other way; yield why it can't."""
    if not model.models:
        yield "there is no model whose precision could be another"
        return
    from basereward.hardware.precision import HALVES, Precision, weights_dtype

    if any(weights_dtype(member.backbone) in HALVES for member in model.models):
        yield "the weights are in half precision, so that there is no other to compare with"
        return
    given = [member.precision for member in model.models]
    try:
        for member in model.models:
            other: Precision = replace(
                member.precision, name="bf16" if member.precision.name == "fp32" else "fp32", reason="audit"
            )
            member.precision = other
        yield ""
    finally:
        for member, precision in zip(model.models, given, strict=True):
            member.precision = precision
