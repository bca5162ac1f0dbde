"""The writer `own`: a model in this process, whose texts are decoded together by our own loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from threading import Lock

import torch

from basereward.backbones.generation import Sampling, generate
from basereward.backbones.trained_heads import is_model_directory
from basereward.config.conversion import Component
from basereward.errors import ConfigError, DataError
from basereward.forest.forest import Tree
from basereward.hardware.precision import device_of, scoring_precision, weights_dtype
from basereward.plugins.plugin_manager import current_manager
from basereward.protocols import Backbone, Writer
from basereward.writers.question_tree import encode_answers, question_tree
from basereward.writers.request import Completion, Request


class LocalModel(Writer):
    """A chat model in this process, for exactness and for small models; a large one is faster in an engine.

    Texts of several requests are decoded together, and what the requests of a group share, images included,
    is read once.

    Args:
        model: A directory with a transformers model and tokenizer, or a hub id.
        backbone: The backbone that reads it, such as `causal-lm`, `qwen-vl` or `internvl`.
        dtype: Type of the weights.
        max_tokens: The longest that prompt and text may be together; None for no limit.
        device: Where the weights go; `auto` for a GPU where there is one.
        precision: Of matrix products: `auto`, `fp32`, `bf16`, or None for fp32 on a CPU and `auto` elsewhere.
        batch_size: Texts that are decoded together.
    """

    def __init__(
        self,
        *,
        model: str,
        backbone: str = "causal-lm",
        dtype: str = "float32",
        max_tokens: int | None = None,
        device: str = "auto",
        precision: str | None = None,
        batch_size: int = 128,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is a number of texts >= 1, not {batch_size}")
        if is_model_directory(model):
            raise ConfigError(
                f"{model} is a reward model, which writes by itself; name it where a model is asked for, and "
                "give writer own a model of transformers"
            )
        options = {"model": model, "dtype": dtype, "max_tokens": max_tokens}
        self.model = model
        self.backbone: Backbone = current_manager().build("backbone", Component(backbone, options))
        self.head = self.backbone.language_head()
        where = device_of(device)
        self.precision = scoring_precision(precision, where, self.backbone.dim, weights_dtype(self.backbone))
        self.backbone.to(where).eval()
        self.head.to(where)
        self.batch_size = batch_size
        self._lock = Lock()
        _, self._end = encode_answers(self.backbone, [], turn="opened")

    @property
    def requests_at_once(self) -> int:
        """The texts that are decoded together."""
        return self.batch_size

    @property
    def reads_images(self) -> bool:
        """Whether the backbone has a vision part."""
        return "vision" in self.backbone.parts()

    @torch.no_grad()
    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a text for each request, in their order; one that can't be encoded has failed."""
        written: list[Completion | None] = [None] * len(requests)
        encoded: list[tuple[list[int], Tree]] = []
        for numbers in _grouped(requests):
            for part in self._encoded(requests, numbers):
                if isinstance(part[1], DataError):
                    written[part[0][0]] = Completion.failed(str(part[1]))
                else:
                    encoded.append((part[0], part[1]))
        with self._lock, self.precision.autocast():
            for batch in self._batches(requests, encoded):
                is_choice = bool(requests[batch[0][0][0]].choices)
                texts = (self._choose if is_choice else self._continue)(requests, batch)
                for number, text in zip(
                    (number for numbers, _ in batch for number in numbers), texts, strict=True
                ):
                    written[number] = text
        return [each or Completion.failed("was not written") for each in written]

    def _encoded(
        self, requests: Sequence[Request], numbers: list[int]
    ) -> list[tuple[list[int], Tree | DataError]]:
        """Return a tree of requests that begin alike; or one of each, if they don't, or the error of each."""
        chosen = [requests[number] for number in numbers]
        try:
            beginnings = [
                ids
                for request in chosen
                for ids in encode_answers(self.backbone, [request.beginning], turn="opened")[0]
            ]
            longest = max(request.max_tokens for request in chosen) + max(map(len, beginnings))
            tree = question_tree(
                self.backbone,
                [request.messages for request in chosen],
                reserve_tokens=longest + len(self._end),
                turn="opened",
            )
        except DataError as error:
            if len(numbers) == 1:
                return [(numbers, error)]
            return [part for number in numbers for part in self._encoded(requests, [number])]
        branches = [[*asks, *ids] for asks, ids in zip(tree.responses, beginnings, strict=True)]
        return [(numbers, replace(tree, responses=branches))]

    def _batches(
        self, requests: Sequence[Request], encoded: Sequence[tuple[list[int], Tree]]
    ) -> list[list[tuple[list[int], Tree]]]:
        """Return trees in batches of about `batch_size` texts that are written in one way."""

        def way(part: tuple[list[int], Tree]) -> tuple[bool, int]:
            request = requests[part[0][0]]
            return bool(request.choices), request.max_tokens

        batches: list[list[tuple[list[int], Tree]]] = []
        for _, alike in groupby(sorted(encoded, key=way), key=way):
            batch: list[tuple[list[int], Tree]] = []
            num_texts = 0
            # Prompts of like length together, since the shorter are padded.
            for part in sorted(alike, key=lambda part: len(part[1].prompt)):
                if batch and num_texts + len(part[0]) > self.batch_size:
                    batches.append(batch)
                    batch, num_texts = [], 0
                batch.append(part)
                num_texts += len(part[0])
            batches.append(batch)
        return batches

    def _continue(
        self, requests: Sequence[Request], batch: Sequence[tuple[list[int], Tree]]
    ) -> list[Completion]:
        asked = [requests[number] for numbers, _ in batch for number in numbers]
        trees = [tree for _, tree in batch]
        generations = generate(
            self.backbone,
            self.head,
            trees,
            max_tokens=asked[0].max_tokens,
            stop_ids=self._end,
            sampling=[
                Sampling(request.temperature, request.seed) if request.temperature else None
                for request in asked
            ],
        )
        opening = self.backbone.turn_opening()
        lengths = [len(tree.prompt) + len(branch) for tree in trees for branch in tree.responses]
        return [
            Completion(
                opening + request.beginning + self.backbone.text(each.ids),
                "finished" if each.is_finished else "cut",
                num_prompt_tokens=length,
                num_tokens=len(each.ids),
                model=self.model,
            )
            for request, length, each in zip(
                asked, lengths, (each for of_tree in generations for each in of_tree), strict=True
            )
        ]

    def _choose(
        self, requests: Sequence[Request], batch: Sequence[tuple[list[int], Tree]]
    ) -> list[Completion]:
        """Return the likelier choice, and the log-probability of each as the next token."""
        asked = [requests[number] for numbers, _ in batch for number in numbers]
        trees = [tree for _, tree in batch]
        row_tokens = float("inf") if self.backbone.packs else None
        forest = replace(self.backbone.pack(trees, row_tokens=row_tokens), reads="ends")
        forest = forest.to(next(self.backbone.parameters()).device)
        ends = self.backbone(forest).flatten(0, 1).index_select(0, forest.ends)  # [N, D]
        of_vocabulary = self.head(ends).double().log_softmax(-1)  # [N, V]
        lengths = [len(tree.prompt) + len(branch) for tree in trees for branch in tree.responses]
        written = []
        for request, length, row in zip(asked, lengths, of_vocabulary, strict=True):
            tokens, _ = encode_answers(self.backbone, list(request.choices), turn="opened")
            if len({ids[0] for ids in tokens}) < len(tokens):
                reason = f"choices begin with a token of their own each, not {list(request.choices)}"
                written.append(Completion.failed(reason))
                continue
            likelihoods = {
                choice: float(row[ids[0]]) for choice, ids in zip(request.choices, tokens, strict=True)
            }
            likeliest = max(likelihoods, key=lambda choice: likelihoods[choice])
            written.append(
                Completion(
                    self.backbone.turn_opening() + request.beginning + likeliest,
                    log_probabilities=likelihoods,
                    num_prompt_tokens=length,
                    num_tokens=1,
                    model=self.model,
                )
            )
        return written


def _grouped(requests: Sequence[Request]) -> list[list[int]]:
    """Return the numbers of requests that stand together and begin alike, or each alone."""
    groups: list[list[int]] = []
    last: Request | None = None
    for number, request in enumerate(requests):
        if last is not None and _begin_alike(request, last):
            groups[-1].append(number)
        else:
            groups.append([number])
        last = request
    return groups


def _begin_alike(one: Request, other: Request) -> bool:
    """Tell whether two requests may share a tree: they are of one group, and have the same images."""
    if one.group is None or one.group != other.group:
        return False
    if one.max_tokens != other.max_tokens or bool(one.choices) != bool(other.choices):
        return False
    media = [
        [part for message in request.messages for part in message.content if not isinstance(part, str)]
        for request in (one, other)
    ]
    try:
        return media[0] == media[1]
    except DataError:  # one that can't be read fails alone
        return False
