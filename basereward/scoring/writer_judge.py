"""Judges without weights of their own: a template, and a writer that answers its questions.

Comparisons are judged as those of a `generative` reward model are, in both orders, with the same counts.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from basereward.comparison import Comparison
from basereward.config.conversion import Component
from basereward.errors import ConfigError, DataError
from basereward.paradigms.critiquing import KEY as CRITIQUES_KEY
from basereward.paradigms.critiquing import given_critiques
from basereward.paradigms.judge_rationales import VERDICTS_KEY, given_verdicts
from basereward.paradigms.judge_template import JudgeTemplate
from basereward.paradigms.rubric import KEY as RUBRIC_KEY
from basereward.paradigms.rubric import rubric_of, written_rubric
from basereward.paradigms.verdict_tally import (
    NO_VERDICT,
    Order,
    VerdictTally,
    asked_orders,
    check_settings,
)
from basereward.paradigms.verdicts import Verdicts
from basereward.plugins.options import component_options
from basereward.plugins.plugin_manager import PluginManager, current_manager
from basereward.prepared import Prepared
from basereward.protocols import Writer
from basereward.scoring.judge_settings import JudgeSettings, judge_settings
from basereward.scoring.scorer import BatchScorer
from basereward.scoring.single_answers import TOKENS, SingleAnswers, SingleChoices, SingleRatings
from basereward.stats.calibration import Calibration
from basereward.writers.request import Completion, Request

NO_REWARDS = {
    "critique": "critiques, of which a critic makes rewards",
    "criteria": "the items of rubrics, which a template of rubrics asks about",
}
"""The answers that have no rewards of their own."""

LEADING_VERDICT = re.compile(r"\W*([12])\b")


@dataclass(frozen=True)
class Questions:
    """The questions about a comparison.

    Args:
        orders: Of the responses that each question shows.
        verdicts: The texts that were given as answers to some.
        requests: For the others, one for each vote.
    """

    orders: Sequence[Order]
    verdicts: Mapping[Order, Sequence[str]]
    requests: Sequence[Request]


class WriterJudge(BatchScorer["list[float]"]):
    """Scores comparisons by the verdicts of a writer; several threads may score at once.

    A comparison of which a question was not answered has no rewards, and its error says why; one that was
    answered in another form than asked for counts as a parse failure.

    Args:
        settings: What is asked, and of whom.
        plugins: Where the writer is looked up; None for the installed ones.
    """

    def __init__(self, settings: JudgeSettings, *, plugins: PluginManager | None = None) -> None:
        self.settings = settings
        self.template = JudgeTemplate.load(settings.template)
        check_settings(
            self.template,
            max_pairs=settings.max_pairs,
            num_votes=settings.num_votes,
            temperature=settings.temperature,
            max_answer_tokens=settings.max_answer_tokens,
        )
        self.writer: Writer = (plugins or current_manager()).build("writer", settings.writer)
        if self.writer.takes_options and self.template.answer != "verdict":
            raise ConfigError(
                f"template {settings.template!r} asks for texts, and the writer is asked for decisions, "
                "which need no template; leave out template"
            )
        self.tally = VerdictTally(settings.aggregate, settings.reading)
        self.single: SingleAnswers | None = None
        if self.template.scale is not None:
            self.single = SingleRatings(self.template, settings.max_answer_tokens)
        elif self.template.answer == "choice":
            self.single = SingleChoices(self.template, settings.max_rotations)
        self._calibration = Calibration(settings.reward_temperature)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, source: str | Path, *, plugins: PluginManager | None = None, **options: Any) -> WriterJudge:
        """Return the judge of a TOML file, or of `judge+http://HOST:PORT/v1` or `decisions+http://...`.

        Args:
            source: The file, or the address of an endpoint.
            plugins: Where the writer is looked up; None for the installed ones.
            options: Options of the writer, in the place of the file's; those that are None are left alone.

        Raises:
            ConfigError: When the file is wrong, or the writer has no such option.
        """
        plugins = plugins or current_manager()
        settings = judge_settings(source)
        allowed = component_options(plugins.load("writer", settings.writer.name))
        chosen = {name: value for name, value in options.items() if value is not None}
        for name in chosen:
            if name not in allowed:
                raise ConfigError(f"writer {settings.writer.name!r} of {source} has no option {name!r}")
        writer = Component(settings.writer.name, {**settings.writer.options, **chosen})
        return cls(replace(settings, writer=writer), plugins=plugins)

    @property
    def statistics(self) -> dict[str, float]:
        """Measures of how reliable the verdicts are, and the counts of the writer."""
        answers = self.tally.statistics if self.single is None else self.single.statistics
        return {**answers, **self.counts, **self.writer.statistics}

    @property
    def computed(self) -> Mapping[str, str]:
        """The writer, and the template with its digest."""
        options = self.settings.writer.options
        judge = " ".join([self.settings.writer.name, str(options.get("model") or "")]).strip()
        if self.writer.takes_options:
            return {"judge": judge, "template": "none: decisions"}
        return {"judge": judge, "template": f"{self.template.name} {self.template.digest[:12]}"}

    @property
    def facts(self) -> Mapping[str, str]:
        """The model that answered, and all else that the writer says of it."""
        return self.writer.facts

    @property
    def digest(self) -> str:
        """SHA-256 of all its settings and its template, on which its rewards depend besides the model."""
        text = f"{self.settings!r} {self.template.digest}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def calibration(self) -> Calibration:
        """The scale of its rewards, by its settings."""
        return self._calibration

    @property
    def is_comparative(self) -> bool:
        """Whether a response's reward depends on the responses beside it, as it does by verdicts."""
        return self.single is None or not isinstance(self.single, SingleRatings)

    @property
    def smallest_batch(self) -> int:
        """The comparisons of two responses that make as many requests as keep the writer busy."""
        return math.ceil(self.writer.requests_at_once / (2 * self.settings.num_votes))

    @property
    def reads_images(self) -> bool:
        """Whether it can be asked about comparisons with images."""
        return self.writer.reads_images

    @property
    def reward_unit(self) -> str:
        """The unit of its rewards where they are bounded; empty where they are not."""
        return self.template.reward_unit if self.single else self.tally.reward_unit

    def takes(self, num_responses: int) -> bool:
        """Tell whether a comparison of so many responses can be asked about."""
        return num_responses > 1 if self.single is None else self.single.takes(num_responses)

    def recording_verdicts(self) -> AbstractContextManager[dict[int, Verdicts]]:
        """Give a dictionary that takes the verdicts on each comparison that is scored, by its `id()`."""
        return self.tally.recording()

    def prepare_batch(self, batch: Sequence[Comparison]) -> list[Prepared[Questions] | DataError]:
        """Return the questions about each comparison, or the error that says why there are none."""
        prepared: list[Prepared[Questions] | DataError] = []
        for comparison in batch:
            try:
                prepared.append(Prepared(comparison, self._asked(comparison)))
            except DataError as error:
                prepared.append(error)
        return prepared

    def score_prepared(self, batch: Sequence[Prepared[Any] | DataError]) -> list[list[float] | DataError]:
        """Return each comparison's rewards, or the error that kept it from having some."""
        return [
            item if isinstance(item, DataError) else self._rewards(item, answers)
            for item, answers in zip(batch, self._answers(batch), strict=True)
        ]

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        """Yield each comparison with its rewards, or with the error that kept it from having some, in order.

        As many comparisons are judged at once as keep the writer busy, and twice that, so that it isn't idle
        while the last answers of a batch are waited for.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is a number of comparisons >= 1, not {batch_size}")
        self.check_rewards()
        size = max(batch_size, self.smallest_batch)
        waiting = iter(comparisons)
        with ThreadPoolExecutor(2, thread_name_prefix="basereward-judge") as threads:
            started: deque[tuple[list[Comparison], Future[list[list[float] | DataError]]]] = deque()
            try:
                while True:
                    while len(started) < 2 and (batch := list(islice(waiting, size))):
                        started.append((batch, threads.submit(self._judged, batch)))
                    if not started:
                        return
                    batch, results = started.popleft()
                    yield from zip(batch, results.result(), strict=True)
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def check_rewards(self) -> None:
        """Refuse a template whose answers have no rewards of their own.

        Raises:
            ConfigError: Naming it.
        """
        if self.template.answer in NO_REWARDS:
            raise ConfigError(
                f"judge template {self.template.name!r} asks for {NO_REWARDS[self.template.answer]}; write "
                "them by `basereward critique`, or name a template of verdicts"
            )

    def estimate(self, comparisons: Iterable[Comparison | DataError]) -> dict[str, float]:
        """Return what judging comparisons would take, by name, and ask nothing."""
        totals: Counter[str] = Counter()
        for comparison in comparisons:
            totals["comparisons"] += 1
            [item] = [comparison] if isinstance(comparison, DataError) else self.prepare_batch([comparison])
            if isinstance(item, DataError):
                totals["rejected"] += 1
                continue
            for name, value in self.writer.estimate(item.content.requests).items():
                totals[name] += value  # type: ignore[assignment]
        return dict(totals)

    @property
    def text_key(self) -> str:
        """The key of `meta` for the texts that are asked for; empty for answers of one token."""
        if self._asks_critiques:
            return CRITIQUES_KEY
        return {"reasoned": VERDICTS_KEY, "criteria": RUBRIC_KEY}.get(self.template.answer, "")

    @property
    def _asks_critiques(self) -> bool:
        scale = self.template.scale
        return self.template.answer == "critique" or (scale is not None and scale.explains)

    def texts(self, comparisons: Sequence[Comparison]) -> list[list[Any] | DataError]:
        """Return the texts on each comparison, or the error of one of which some could not be written.

        They are reasoned verdicts on each pair in both orders, a critique of each response, or the items of a
        rubric; those that a comparison has in its `meta` are kept.
        """
        prepared = self.prepare_batch(comparisons)
        results: list[list[Any] | DataError] = []
        for item, answers in zip(prepared, self._answers(prepared), strict=True):
            if isinstance(item, DataError):
                results.append(item)
            else:
                results.append(_failure(answers) or self._kept(item.comparison, item.content, answers))
        return results

    def _criteria(self, comparison: Comparison) -> Questions:
        """Return a request for the rubric of a comparison that has none."""
        if comparison.meta.get(RUBRIC_KEY) is not None:
            rubric_of(comparison)
            return Questions((), {}, [])
        return Questions((), {}, [self._request(comparison, (), seed=0)])

    def _answers(self, batch: Sequence[Prepared[Questions] | DataError]) -> list[list[Completion]]:
        """Return the answers to each comparison's requests, of all together."""
        counts = [0 if isinstance(item, DataError) else len(item.content.requests) for item in batch]
        requests = [
            request for item in batch if not isinstance(item, DataError) for request in item.content.requests
        ]
        written = iter(self.writer.write(requests) if requests else ())
        return [list(islice(written, count)) for count in counts]

    def _asked(self, comparison: Comparison) -> Questions:
        if self.template.answer == "critique":
            return self._critique(comparison)
        if self.template.answer == "criteria":
            return self._criteria(comparison)
        if self.single is not None:
            return Questions((), {}, self.single.requests(comparison))
        return self._questions(comparison)

    def _critique(self, comparison: Comparison) -> Questions:
        """Return a request for the critique of each response that has none."""
        requests = [
            self._request(comparison, (number,), seed=0)
            for number, given in enumerate(given_critiques(comparison))
            if given is None
        ]
        return Questions((), {}, requests)

    def _kept(
        self, comparison: Comparison, item: Questions, answers: Sequence[Completion]
    ) -> list[Any] | DataError:
        """Return the texts on a comparison in the form in which its `meta` keeps them."""
        new = iter(each.text for each in answers)
        if self.template.answer == "criteria":
            text = next(new, None)
            items = comparison.meta[RUBRIC_KEY] if text is None else written_rubric(text)
            return items or DataError(f"no item of a rubric could be read in {text!r:.80}", field="judge")
        if self._asks_critiques:
            return [next(new) if text is None else text for text in given_critiques(comparison)]
        votes = self.settings.num_votes
        return [
            {"first": first, "second": second, "text": text}
            for first, second in item.orders
            for text in item.verdicts.get((first, second)) or list(islice(new, votes))
        ]

    def _judged(self, batch: Sequence[Comparison]) -> list[list[float] | DataError]:
        return self.score_prepared(self.prepare_batch(batch))

    def _questions(self, comparison: Comparison) -> Questions:
        """Return the questions about a comparison.

        Raises:
            DataError: When it has one response, its verdicts are wrong, or it can't be shown.
        """
        if len(comparison.responses) < 2:
            raise DataError("a judge compares responses; there is only one", field="responses")
        orders = asked_orders(len(comparison.responses), self.settings.max_pairs)
        is_reasoned = self.template.answer == "reasoned"
        verdicts: Mapping[Order, Sequence[str]] = given_verdicts(comparison) if is_reasoned else {}
        requests = [
            self._request(comparison, order, seed=vote)
            for order in orders
            if order not in verdicts
            for vote in range(self.settings.num_votes)
        ]
        return Questions(orders, verdicts, requests)

    def _request(self, comparison: Comparison, numbers: Sequence[int], *, seed: int) -> Request:
        responses = [comparison.responses[number] for number in numbers]
        takes_options = self.writer.takes_options
        is_verdict = self.template.answer == "verdict"
        return Request(
            comparison.prompt if takes_options else self.template.messages(comparison.prompt, responses),
            max_tokens=TOKENS if is_verdict else self.settings.max_answer_tokens,
            temperature=self.settings.temperature if self.settings.num_votes > 1 else 0.0,
            seed=seed,
            choices=("1", "2") if is_verdict else (),
            options=responses if takes_options else (),
            group=id(comparison),
        )

    def _rewards(self, item: Prepared[Questions], answers: list[Completion]) -> list[float] | DataError:
        if error := _failure(answers):
            return error
        questions = item.content
        with self._lock:
            if self.single is not None:
                rewards = self.single.rewards(item.comparison, answers)
            elif self.template.answer == "verdict":
                rewards = self._verdict_rewards(item, answers)
            else:
                new = iter(answers)
                texts_of: dict[Order, Sequence[str | None]] = {
                    order: questions.verdicts.get(order)
                    or [_whole(each) for each in islice(new, self.settings.num_votes)]
                    for order in questions.orders
                }
                rewards = self.tally.rewards_of_texts(item.comparison, texts_of)
        if not all(map(math.isfinite, rewards)):
            return DataError(self.single.reason if self.single else NO_VERDICT, field="responses")
        return rewards

    def _verdict_rewards(self, item: Prepared[Questions], answers: Sequence[Completion]) -> list[float]:
        """Return rewards by log-probabilities, where the writer gives them for all questions, or by texts."""
        orders = item.content.orders
        if all(each.log_probabilities for each in answers):
            odds_of = {
                order: each.log_probabilities["1"] - each.log_probabilities["2"]
                for order, each in zip(orders, answers, strict=True)
            }
            masses = (math.fsum(map(math.exp, each.log_probabilities.values())) for each in answers)
            return self.tally.rewards_of_odds(item.comparison, odds_of, masses)
        self.counts["judged_by_text"] += 1
        verdicts = {order: [_leading_verdict(each.text)] for order, each in zip(orders, answers, strict=True)}
        return self.tally.rewards_of_texts(item.comparison, verdicts)


def _failure(answers: Sequence[Completion]) -> DataError | None:
    """Return the error of a comparison of which a question was not answered."""
    failed = [each for each in answers if each.ending == "failed"]
    if not failed:
        return None
    num = f"{len(failed)} of {len(answers)} questions"
    return DataError(f"the judge has not answered {num}, the first: {failed[0].reason}", field="judge")


def _whole(completion: Completion) -> str | None:
    """Return a text that is whole; one that was cut gave no verdict, whatever it looks like."""
    return completion.text if completion.ending == "finished" else None


def _leading_verdict(text: str) -> int | None:
    match = LEADING_VERDICT.match(text)
    return None if match is None else int(match[1])
