"""Traces for a judge that reasons, written by a larger model: the texts, and how hard each pair was.

    python recipes/rl/traces.py data/r1-reward-pairs.jsonl --output data/r1-reward-traces.jsonl \\
        --hard data/r1-reward-hard.jsonl --address https://api.openai.com/v1 --model gpt-4o

As R1-Reward made its own (arXiv 2505.02835, section 5), whose texts were not published. A pair of each row is
put to the model by the judge template of this package, its responses in an order drawn by the row, at a
temperature of 0 and at most three times, until the verdict is what the ranks say. Such a text becomes the
row's `judgements`. Rows that took two tries or more, or had no right verdict, are those to reinforce on, in
the second file; rows with videos are left out there, since TRL's trainer shows none.

Images stay where they are: write both files into the directory of the data. Every answer is kept in a file
beside the first, and the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TextIO

from chat_server import ChatServer

from basereward.comparison import Comparison
from basereward.data.formats import DetectedDataset
from basereward.data.ranking_pairs import RankingPairs
from basereward.data.writing import open_writer
from basereward.errors import DataError
from basereward.paradigms.judge_template import JudgeTemplate
from basereward.paradigms.verdicts import read_verdict

NUM_AHEAD = 256
"""Rows that wait for an answer at once."""


class Trace(NamedTuple):
    """The answers on a pair.

    Args:
        comparison: The pair.
        order: The responses that were shown first and second.
        texts: What was answered, to the first right verdict or the last try.
        is_right: Whether the last verdict is what the ranks say.
    """

    comparison: Comparison
    order: tuple[int, int]
    texts: tuple[str, ...]
    is_right: bool

    @property
    def is_hard(self) -> bool:
        """Whether the first answer was wrong or no verdict."""
        return len(self.texts) > 1 or not self.is_right


def key_of(comparison: Comparison) -> str:
    """Return what a row's answers are kept by: a digest of its texts."""
    texts = [comparison.id, *(message.text for message in comparison.prompt), *comparison.responses]
    return hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def traced(
    comparison: Comparison, server: ChatServer, template: JudgeTemplate, *, known: Iterable[str], tries: int
) -> Trace:
    """Ask about a pair until its verdict is right, the answers that are known first."""
    assert comparison.ranks is not None
    first = int(key_of(comparison), 16) % 2
    order = (first, 1 - first)
    right = 1 if comparison.ranks[order[0]] < comparison.ranks[order[1]] else 2
    texts: list[str] = []
    waiting = iter(known)
    messages = template.messages(comparison.prompt, [comparison.responses[number] for number in order])
    while len(texts) < tries:
        texts.append(next(waiting, None) or server.ask(messages).strip())
        if read_verdict(texts[-1]) == right:
            return Trace(comparison, order, tuple(texts), True)
    return Trace(comparison, order, tuple(texts), False)


def pairs_of(path: Path) -> Iterator[Comparison]:
    """Yield one pair of each row of a file that has one."""
    for row in RankingPairs(DetectedDataset(path), "one").read():
        if isinstance(row, Comparison) and row.ranks and len(set(row.ranks)) == len(row.ranks) == 2:
            yield row


def answers_of(path: Path) -> dict[str, list[str]]:
    """Return the answers that are kept in a file; a last line that was cut short counts for nothing."""
    answers: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else ():
        entry = json.loads(line)
        answers[entry["key"]] = entry["texts"]
    return answers


def traces(
    rows: Iterable[Comparison],
    server: ChatServer,
    *,
    kept: dict[str, list[str]],
    log: TextIO,
    tries: int = 3,
    num_threads: int = 16,
) -> Iterator[Trace | DataError]:
    """Yield the trace of each row, in their order, and write new answers to a log as they come.

    Args:
        rows: The rows.
        server: The model that is asked.
        kept: Answers of an earlier run.
        log: Takes the answers of rows that had none.
        tries: How often a row is asked about.
        num_threads: Rows that are asked about at once.
    """
    template = JudgeTemplate.load("reasoned")

    def one(row: Comparison) -> Trace | DataError:
        try:
            return traced(row, server, template, known=kept.get(key_of(row), ()), tries=tries)
        except DataError as error:
            return row.place.locate(error)

    with ThreadPoolExecutor(num_threads) as threads:
        for chunk in _chunks(rows):
            for result in threads.map(one, chunk):
                if isinstance(result, Trace) and (key := key_of(result.comparison)) not in kept:
                    log.write(json.dumps({"key": key, "texts": result.texts}, ensure_ascii=False) + "\n")
                    log.flush()
                yield result


def _chunks(rows: Iterable[Comparison]) -> Iterator[list[Comparison]]:
    chunk: list[Comparison] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == NUM_AHEAD:
            yield chunk
            chunk = []
    yield chunk


def main() -> None:
    """Write the traces."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="rows with ranks, such as `basereward data mix` writes")
    parser.add_argument("--output", type=Path, required=True, help="the rows with their traces")
    parser.add_argument("--hard", type=Path, required=True, help="the rows to reinforce on")
    parser.add_argument("--address", default="https://api.openai.com/v1", help="of the model's server")
    parser.add_argument("--model", default="gpt-4o", help="its name there")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=16, help="rows that are asked about at once")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier files, not the answers")
    arguments = parser.parse_args()
    server = ChatServer(arguments.address, arguments.model, temperature=arguments.temperature)
    log_path = arguments.output.with_name(f"{arguments.output.name}.answers")
    counts = {"right": 0, "hard": 0, "without a right verdict": 0, "left out": 0}
    kept = answers_of(log_path)
    with ExitStack() as stack:
        log = stack.enter_context(log_path.open("a", encoding="utf-8"))
        easy, hard = (
            stack.enter_context(open_writer(path, images="keep", overwrite=arguments.overwrite))
            for path in (arguments.output, arguments.hard)
        )
        rows = pairs_of(arguments.data)
        for trace in traces(
            rows, server, kept=kept, log=log, tries=arguments.tries, num_threads=arguments.threads
        ):
            if isinstance(trace, DataError):
                counts["left out"] += 1
                continue
            meta = {"tries": len(trace.texts)}
            first, second = trace.order
            if trace.is_right:
                counts["right"] += 1
                judgement = {"first": first, "second": second, "text": trace.texts[-1]}
                easy.write(trace.comparison.with_meta(judgements=[judgement], **meta))
            else:
                counts["without a right verdict"] += 1
            if trace.is_hard and not trace.comparison.videos:
                counts["hard"] += 1
                hard.write(trace.comparison.with_meta(**meta))
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
