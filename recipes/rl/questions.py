"""Published sets of questions about images, as the rows that qwen2_5_vl_3b.py trains on.

    python recipes/rl/questions.py data/DeepEyes-Datasets-47k --output data/questions/questions.jsonl

The paper trains on V*, arXivQA and ThinkLite-VL (arXiv 2509.16127, section 5.4.1) and names no files. A row's
fields tell what it is of, and several files make one set:

- DeepEyes-Datasets-47k (`ChenShawn/DeepEyes-Datasets-47k`), Parquet files of all three for reinforcement
  learning: V* 22,362, arXivQA 13,659 and ThinkLite-VL 11,031 rows of `prompt`, `images` and `reward_model`.
- V*'s training data (`craigwu/seal_vqa_data`): JSON of `question` and `answer`, or `conversations`, with
  `target_instances`; the images are those of COCO and GQA.
- V*Bench (`craigwu/vstar_bench`): 191 rows of `text` and `label`, on which table 11's column V* is evaluated:
  train on them only to see what that does.
- arXivQA (`MMInstruction/ArxivQA`): JSONL of `question`, `options` and `label`; unpack images.tgz beside it.
- ThinkLite-VL (`russwang/ThinkLite-VL-hard-11k`): Parquet of `problem` and `answer`.

A row of the result has `image`, a path from the result's directory, `question` and `answer`. Images within
rows are written to `images/` beside the result. Rows without an image, question or answer, or with several
images, are left out, and counted by the field that is at fault.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from basereward.data.fields import as_list, text_of
from basereward.data.reading.rows import read_rows
from basereward.errors import DataError
from basereward.media.image import Image

FILES = ("*.parquet", "*.jsonl", "*.json")
PLACEHOLDER = "<image>"
TOOL = re.compile(r"\s*Think first, call \*\*image_zoom_in_tool\*\*.*\Z", re.DOTALL)
"""What DeepEyes appends to a question; there is no such tool here."""
ASKED = "Question:\n"
"""What DeepEyes writes between its instructions and ThinkLite-VL's question."""
DIRECTLY = re.compile(r"\s*Answer with the option's letter from the given choices directly\.?\s*\Z")
FOCUS = re.compile(r"^Additional visual information to focus on:.*$", re.MULTILINE)
"""What V*'s training data tells of the places of objects, which a policy is to find itself."""
LETTERED = re.compile(r"\s*[(\[]?([A-Z])(?:[)\].:]|\Z)")


class Question(NamedTuple):
    """A question about an image.

    Args:
        image: What a row has as its image: a path, bytes, or a mapping of them.
        text: The question, its options included.
        answer: The right answer; of a question with options the letter.
    """

    image: Any
    text: str
    answer: str


def of_row(row: Mapping[str, Any]) -> Question:
    """Return the question of a row of any of the layouts.

    Raises:
        DataError: When it is of none, or lacks image, question or answer.
    """
    if "reward_model" in row:
        return _deepeyes(row)
    if "options" in row and "label" in row:
        return _arxivqa(row)
    if "text" in row and "label" in row:
        return Question(row.get("image"), DIRECTLY.sub("", text_of(row, "text")), text_of(row, "label"))
    if "target_instances" in row:
        return _vstar_training(row)
    if "problem" in row:
        return _thinklite(row)
    raise DataError(f"is of no known layout; its fields: {', '.join(sorted(map(str, row)))}")


def _deepeyes(row: Mapping[str, Any]) -> Question:
    texts = [text_of(turn, "content") for turn in as_list(row.get("prompt")) if turn.get("role") == "user"]
    images = as_list(row.get("images"))
    if len(texts) != 1 or len(images) != 1:
        raise DataError(f"has {len(texts)} questions and {len(images)} images, not one of each")
    question = TOOL.sub("", texts[0].rpartition(ASKED)[2])
    return Question(images[0], question, str(row["reward_model"].get("ground_truth") or ""))


def _arxivqa(row: Mapping[str, Any]) -> Question:
    # Some lists have a line between options, or the figure's heading.
    options = [
        option.strip()
        for option in as_list(row["options"])
        if option.strip(" -") and option.strip()[0] != "#"
    ]
    letters = [chr(ord("A") + number) for number in range(len(options))]
    if [_letter(option) for option in options] != letters:
        options = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
    label = _letter(text_of(row, "label"))
    if label not in letters:
        raise DataError(f"is {row['label']!r:.40}, which is no option", field="label")
    return Question(row.get("image"), "\n".join([text_of(row, "question"), *options]), str(label))


def _letter(text: str) -> str | None:
    match = LETTERED.match(text)
    return match[1] if match else None


def _vstar_training(row: Mapping[str, Any]) -> Question:
    if "question" in row:
        return Question(row.get("image"), text_of(row, "question"), text_of(row, "answer"))
    said = {turn.get("from"): text_of(turn, "value") for turn in reversed(as_list(row.get("conversations")))}
    if not {"human", "gpt"} <= set(said):
        raise DataError("has no turn of human and gpt", field="conversations")
    return Question(row.get("image"), FOCUS.sub("", said["human"]), said["gpt"])


def _thinklite(row: Mapping[str, Any]) -> Question:
    answer = row.get("ground_truth") or row.get("answer")
    question = text_of(row, "problem")
    choices = [choice for choice in as_list(row.get("choices")) if choice not in question]
    return Question(row.get("image"), "\n".join([question, *choices]), str(answer or ""))


def rows_of(path: Path) -> Iterator[tuple[Path, int, Mapping[str, Any] | DataError]]:
    """Yield the rows of a file, or of all files of a directory, each with its file and number."""
    files = [path]
    if path.is_dir():
        files = sorted(file for pattern in FILES for file in path.glob(pattern))
        if not files:
            raise SystemExit(f"{path} has no {' or '.join(FILES)}")
    for file in files:
        for number, row in read_rows(file):
            yield file, number, row


def written(
    paths: Iterable[Path], output: Path, *, image_root: Path | None = None
) -> tuple[int, Counter[str]]:
    """Write the questions of files, and return how many there are, and the rejected rows by field.

    Args:
        paths: Files, or directories of them.
        output: The file to write.
        image_root: The directory that paths of images start from; None for that of each file.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    num, rejected = 0, Counter[str]()
    with output.open("w", encoding="utf-8") as lines:
        for path in paths:
            for file, number, row in rows_of(path):
                try:
                    if isinstance(row, DataError):
                        raise row
                    question = of_row(row)
                    text = question.text.replace(PLACEHOLDER, "").strip()
                    if not text or not question.answer.strip():
                        raise DataError("has no question or no answer")
                    image = _placed(question.image, image_root or file.parent, output.parent)
                except DataError as error:
                    field = error.field or "row"
                    if not rejected[field]:
                        print(f"left out: {file}:{number}: {error}", file=sys.stderr)
                    rejected[field] += 1
                    continue
                entry = {"image": image, "question": text, "answer": question.answer.strip()}
                lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
                num += 1
    return num, rejected


def _placed(image: Any, root: Path, directory: Path) -> str:
    """Return the path of an image from a directory; one within a row is written there."""
    if image is None or image == "":
        raise DataError("has no image", field="image")
    if isinstance(image, str):
        path = root / image
        Image(path).size()
        return os.path.relpath(path, directory)
    opened = Image(image)
    opened.size()
    content = opened.encoded()
    kind = "png" if content.startswith(b"\x89PNG") else "webp" if content[8:12] == b"WEBP" else "jpg"
    name = f"images/{opened.digest[:32]}.{kind}"
    if not (directory / name).exists():
        (directory / "images").mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
    return name


def main() -> None:
    """Write the questions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, nargs="+", help="a file, or a directory of files")
    parser.add_argument("--output", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--images", type=Path, help="where paths of images start (default: beside each file)")
    arguments = parser.parse_args()
    num, rejected = written(arguments.path, arguments.output, image_root=arguments.images)
    print(f"{num:,} questions in {arguments.output}")
    for field, count in rejected.most_common():
        print(f"{count:,} rows left out for their {field}")
    if not num:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
