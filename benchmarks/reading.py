"""Time the reading of preference data: rows a second of each reader, and from a file to batches.

Run as `python benchmarks/reading.py --rows 200000`; `pip install datasets` first. All ways take turns, so
that a noisy machine disturbs them alike; each time is the smallest of the repeats.

- Rows: JSONL to dictionaries, by `read_rows` and by `datasets.load_dataset`, whose cache is empty.
- Reading: rows become checked comparisons (`TRLDataset`), from JSONL, a JSON list, gzipped JSONL, Parquet and
  Arrow.
- Whole path: rows become batches ready for a model. Ours: comparisons, encoded and packed to forests.
  Theirs: a plain collator that renders both conversations with the chat template, tokenizes and pads them.
  The tokens are the same; before anything is timed that is checked on some rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from basereward.backbones.chat_template import Chat
from basereward.data import TRLDataset
from basereward.data.reading.rows import read_rows
from basereward.forest import Tree, pack

BATCH = 64
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


def sentences(chance: random.Random, words: list[str], num_words: int) -> str:
    """Return words in a random order."""
    return " ".join(chance.choices(words, k=num_words))


def write_data(directory: Path, num_rows: int) -> dict[str, Path]:
    """Write the same rows in every format: conversations of about 40 words asked and 80 answered, twice."""
    import pyarrow
    import pyarrow.parquet

    chance = random.Random(0)
    letters = "etaoinshrdlucmfwyp"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(5000)]
    paths = {name: directory / f"rows.{name}" for name in ("jsonl", "json", "jsonl.gz", "parquet", "arrow")}
    rows = []
    for number in range(num_rows):
        prompt = {"role": "user", "content": sentences(chance, words, chance.randint(10, 70))}
        answers = [
            {"role": "assistant", "content": sentences(chance, words, chance.randint(20, 140))}
            for _ in range(2)
        ]
        rows.append({"id": str(number), "chosen": [prompt, answers[0]], "rejected": [prompt, answers[1]]})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    paths["jsonl"].write_text(text)
    paths["jsonl.gz"].write_bytes(gzip.compress(text.encode(), 1))
    paths["json"].write_text(json.dumps(rows))
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, paths["parquet"])
    with pyarrow.ipc.new_stream(str(paths["arrow"]), table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)
    return paths


def make_tokenizer(path: Path) -> Any:
    """Return a byte-level BPE tokenizer of 8,000 tokens with a chat template, trained on the data."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    with path.open() as lines:
        bpe.train_from_iterator(islice(lines, 2000), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return tokenizer


def batched(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield lists of `BATCH` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def read_ours(path: Path) -> int:
    """Read a file to comparisons."""
    return sum(1 for _ in TRLDataset(path))


def load_theirs(path: Path) -> Any:
    """Load a file with an empty cache, as the first run on a data set does."""
    import datasets

    datasets.disable_progress_bars()
    cache = path.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))


def read_theirs(path: Path) -> int:
    """Load a file and look at each row."""
    return sum(1 for _ in load_theirs(path))


def forests(path: Path, tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Yield rows and tokens of each batch on our way."""
    chat = Chat(tokenizer)
    for batch in batched(TRLDataset(path)):
        trees = [Tree.of_text(*chat.encode(item.prompt, item.responses)) for item in batch]
        yield len(batch), pack(trees, pad=tokenizer.pad_token_id).input_ids.numel()


def padded(path: Path, tokenizer: Any) -> Iterator[tuple[int, int]]:
    """Yield rows and tokens of each batch on their way."""
    for batch in load_theirs(path).iter(batch_size=BATCH):
        texts = tokenizer.apply_chat_template([*batch["chosen"], *batch["rejected"]], tokenize=False)
        # A response ends with its end token; what the template writes after it is no part of it.
        texts = [text.rstrip() for text in texts]
        found = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        yield len(batch["chosen"]), found["input_ids"].numel()


def check_tokens(path: Path, tokenizer: Any) -> None:
    """Refuse to compare ways whose tokens differ."""
    chat = Chat(tokenizer)
    with path.open() as lines:
        rows = [json.loads(line) for line in islice(lines, 50)]
    for row, item in zip(rows, TRLDataset(path), strict=False):
        prompt, responses = chat.encode(item.prompt, item.responses)
        for name, response in zip(("chosen", "rejected"), responses, strict=True):
            text = tokenizer.apply_chat_template(row[name], tokenize=False).rstrip()
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == [*prompt, *response]


def timed(run: Callable[[], int], expected: int) -> float:
    """Return the seconds that a run takes, which must meet all rows."""
    start = time.perf_counter()
    num_rows = run()
    seconds = time.perf_counter() - start
    assert num_rows == expected, f"{num_rows} rows, not {expected}"
    return seconds


def main() -> None:
    """Time all ways by turns, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "reading.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        paths = write_data(Path(temporary), args.rows)
        tokenizer = make_tokenizer(paths["jsonl"])
        check_tokens(paths["jsonl"], tokenizer)
        tokens = {}

        def counted(batches: Callable[[Path, Any], Iterable[tuple[int, int]]], name: str) -> int:
            counts = list(batches(paths["jsonl"], tokenizer))
            tokens[name] = sum(count for _, count in counts)
            return sum(rows for rows, _ in counts)

        ways: dict[str, Callable[[], int]] = {
            "rows of jsonl": lambda: sum(1 for _ in read_rows(paths["jsonl"])),
            "rows of jsonl, datasets": lambda: read_theirs(paths["jsonl"]),
            **{f"read {name}": lambda path=path: read_ours(path) for name, path in paths.items()},
            "jsonl to forests": lambda: counted(forests, "forest"),
            "jsonl to padded tensors, datasets": lambda: counted(padded, "padded"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, run in ways.items():
                seconds[name].append(timed(run, args.rows))
        size = {name: path.stat().st_size for name, path in paths.items()}
    rows_per_second = {name: args.rows / min(times) for name, times in seconds.items()}
    for name, speed in rows_per_second.items():
        print(f"{name:36} {speed:10,.0f} rows/s   spread {max(seconds[name]) / min(seconds[name]):.2f}")
    print(f"tokens in batches: forest {tokens['forest']:,}, padded {tokens['padded']:,}")
    result = {
        "rows": args.rows,
        "repeats": args.repeats,
        "bytes": size,
        "rows_per_second": {name: round(speed, 1) for name, speed in rows_per_second.items()},
        "seconds": seconds,
        "tokens_in_batches": tokens,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
