"""Writers that break one promise each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mutants import Mutant

from basereward.protocols import Writer
from basereward.testing import writers
from basereward.writers.request import Completion, Request


class Echo(Writer):
    """Writes what was asked."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Completion:
        return Completion(f"{request.beginning} {request.messages[-1].text}")


class NeverWrites(Echo):
    """Fails always."""

    def answer(self, request: Request) -> Completion:
        return Completion.failed("the server is away")


class LeavesOut(Echo):
    """Has no text for the last of several requests."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return super().write(requests)[: max(1, len(requests) - 1)]


class FailsWithoutReason(Echo):
    """Fails for short texts, and says nothing."""

    def answer(self, request: Request) -> Completion:
        return super().answer(request) if request.max_tokens > 1 else Completion(ending="failed")


class FailsWithText(Echo):
    """Hands an error message over as a text, as other tools do."""

    def answer(self, request: Request) -> Completion:
        if request.max_tokens > 1:
            return super().answer(request)
        return Completion("Failed to obtain answer via API.", "failed", "timed out")


class AsTheyArrive(Echo):
    """Returns texts in the order in which they are done, the shortest first."""

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        return sorted(super().write(requests), key=lambda each: -len(each.text))


class DropsTheBeginning(Echo):
    """Leaves out what a text is to begin with."""

    def answer(self, request: Request) -> Completion:
        return Completion(request.messages[-1].text)


class Certain(Echo):
    """Says that each choice is certain."""

    def answer(self, request: Request) -> Completion:
        return replace(super().answer(request), log_probabilities=dict.fromkeys(request.choices, 0.0))


class Blind(Echo):
    """Leaves images out, and says that it reads none."""

    reads_images = False


class HalfBlind(Echo):
    """Says that it reads images, and reads the text alone."""

    def answer(self, request: Request) -> Completion:
        return replace(super().answer(request), num_prompt_tokens=len(request.messages[-1].text))


class DividesByNothing(Echo):
    """Counts tokens a second in no time."""

    statistics = {"tokens_per_second": float("inf")}  # noqa: RUF012


MUTANTS = [
    Mutant(
        writers.writes_a_text_for_each_request,
        NeverWrites,
        "all of # requests failed, the first: the server is away",
    ),
    Mutant(
        writers.writes_a_text_for_each_request,
        LeavesOut,
        "# requests have # texts; needed: a Completion for each",
    ),
    Mutant(writers.says_how_each_text_ended, FailsWithoutReason, "a request failed without a reason"),
    Mutant(
        writers.says_how_each_text_ended,
        FailsWithText,
        "a request failed, and has the text 'Failed to obtain answer via API.'",
    ),
    Mutant(
        writers.keeps_the_order,
        AsTheyArrive,
        "among others a request has the text ' cat dog red mat sits runs blue', alone ' is sits hat'",
    ),
    Mutant(
        writers.begins_as_asked,
        DropsTheBeginning,
        "a text that begins with 'The cat' is 'is sits hat'",
    ),
    Mutant(
        writers.chooses_among_choices,
        Certain,
        "the probabilities of two tokens add up to #",
    ),
    Mutant(
        writers.sees_or_refuses_images,
        Blind,
        "it reads no images, and answers one with ' is sits hat'",
    ),
    Mutant(
        writers.sees_or_refuses_images,
        HalfBlind,
        "a prompt has # tokens with an image, and # without",
    ),
    Mutant(writers.counts_what_it_wrote, DividesByNothing, "the statistic tokens_per_second is #"),
]
