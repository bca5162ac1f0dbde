"""Checks of a writer: a text for each request, in their order, and a failure that says why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

from basereward.media.image import Image
from basereward.message import Message
from basereward.testing.material import image, sentence
from basereward.testing.subject import Subject, checks_of, does_not_apply, require
from basereward.writers.request import Completion, Ending, Request

NUM_REQUESTS = 5
MAX_TOKENS = 8


def writes_a_text_for_each_request(subject: Subject) -> None:
    """Each request has a text, and none has none; no requests have no texts"""
    requests = _requests()
    written = _written(subject, requests)
    require(
        any(each.ending != "failed" for each in written),
        f"all of {len(requests)} requests failed, the first: {written[0].reason}",
    )
    require(list(subject.build().write([])) == [], "no requests have texts")


def says_how_each_text_ended(subject: Subject) -> None:
    """A text is finished or cut; one that failed has a reason, and no text"""
    for each in _written(subject, [*_requests(), *_requests(max_tokens=1)]):
        require(each.ending in get_args(Ending), f"a text's ending is {each.ending!r}")
        if each.ending == "failed":
            require(each.reason, "a request failed without a reason")
            require(not each.text, f"a request failed, and has the text {each.text!r}")
        else:
            require(not each.reason, f"a text has the reason of a failure, {each.reason!r}")


def keeps_the_order(subject: Subject) -> None:
    """At temperature 0 a request has the text that it has alone, in whatever order requests come"""
    requests = _requests()
    together = _written(subject, requests)
    turned = _written(subject, requests[::-1])[::-1]
    for number, request in enumerate(requests):
        [alone] = _written(subject, [request])
        for others, each in (("among others", together[number]), ("in another order", turned[number])):
            require(
                each.text == alone.text,
                f"{others} a request has the text {each.text!r}, alone {alone.text!r}",
            )


def begins_as_asked(subject: Subject) -> None:
    """A text begins with its request's beginning, or the request has failed"""
    for each in _written(subject, _requests(beginning="The cat")):
        require(
            each.ending == "failed" or each.text.lstrip().startswith("The cat"),
            f"a text that begins with 'The cat' is {each.text!r}",
        )


def chooses_among_choices(subject: Subject) -> None:
    """Log-probabilities, where there are any, are one for each choice, and together at most 1"""
    for each in _written(subject, _requests(choices=("1", "2"))):
        values = each.log_probabilities
        if values:
            require(list(values) == ["1", "2"], f"the log-probabilities of '1' and '2' are of {list(values)}")
            total = sum(map(math.exp, values.values()))
            require(total <= 1 + 1e-6, f"the probabilities of two tokens add up to {total:.3g}")


def sees_or_refuses_images(subject: Subject) -> None:
    """A request with an image is answered, or has failed with a reason; the image is never left out"""
    writer = subject.build()
    [shown], [without] = writer.write([_request(0, has_image=True)]), writer.write([_request(0)])
    if not writer.reads_images:
        require(shown.ending == "failed", f"it reads no images, and answers one with {shown.text!r}")
        return
    require(shown.ending != "failed", f"it reads images, and fails with one: {shown.reason}")
    counts = (shown.num_prompt_tokens, without.num_prompt_tokens)
    require(
        not all(counts) or counts[0] > counts[1],
        f"a prompt has {counts[0]} tokens with an image, and {counts[1]} without",
    )


def counts_what_it_wrote(subject: Subject) -> None:
    """Statistics are finite numbers, and facts are texts"""
    writer = subject.build()
    writer.write(_requests())
    if not writer.statistics and not writer.facts:
        does_not_apply("it counts nothing")
    for name, value in writer.statistics.items():
        require(math.isfinite(value), f"the statistic {name} is {value}")
    for name, text in writer.facts.items():
        require(isinstance(text, str), f"the fact {name} is {text!r}")


def _request(
    number: int, *, has_image: bool = False, max_tokens: int = MAX_TOKENS, **settings: Any
) -> Request:
    text = sentence(number, 3 + number)
    content = (Image(image(56, 56, number)), text) if has_image else (text,)
    return Request([Message("user", content)], max_tokens=max_tokens, **settings)


def _requests(**settings: Any) -> list[Request]:
    return [_request(number, **settings) for number in range(NUM_REQUESTS)]


def _written(subject: Subject, requests: Sequence[Request]) -> Sequence[Completion]:
    written: Sequence[Completion] = subject.build().write(requests)
    require(
        len(written) == len(requests) and all(isinstance(each, Completion) for each in written),
        f"{len(requests)} requests have {len(written)} texts; needed: a Completion for each",
    )
    return written


CHECKS = checks_of(__name__)
