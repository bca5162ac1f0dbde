"""Read rows in JSON: of a line, and of a file that is one list, in flat memory.

A list is read by `json`'s own scanner on a window of the text rather than by a streaming parser such as
ijson, so that a row means the same, to the last digit, as it does in JSONL.
"""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from basereward.data.reading.row import Row
from basereward.errors import DataError
from basereward.storage.reading import unique_keys

BLOCK = 1 << 20
MAX_ROW = 64 << 20
"""Bytes of a line, and characters of a row of a list, at most: one without end would fill the memory."""

NEARLY = 32
"""An error this near to the end of what is read so far may be of what is still missing."""

LENIENT = json.JSONDecoder(parse_int=len).raw_decode
"""Scans a value to its end, whatever its numbers and keys are."""

SPACE = " \t\n\r"


def parsed(line: bytes) -> Row:
    """Return the JSON object that a line holds.

    Raises:
        DataError: When it holds none, or text that no tokenizer can take.
    """
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=unique_keys)
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: byte {error.start} is 0x{line[error.start]:02x}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # brackets without end; a number of thousands of digits
        raise DataError(f"is not JSON that can be read: {error}") from error
    return checked(row, b"\\ud" in line or b"\\uD" in line)


def checked(row: Any, may_hold_surrogates: bool) -> Row:
    """Return a value that is a row.

    Args:
        row: The value.
        may_hold_surrogates: Whether its text had an escape of one; looking through all rows takes long.

    Raises:
        DataError: When it is no JSON object, or holds text that no tokenizer can take.
    """
    if not isinstance(row, dict):
        raise DataError(f"a row is a JSON object with the row's fields, not a {type(row).__name__}")
    if may_hold_surrogates:
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                "holds half of a surrogate pair, such as \\ud83d alone, which is no character"
            ) from error
        except RecursionError as error:
            raise DataError("is nested too deeply") from error
    return row


def read_list(file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, Row | DataError]]:
    """Yield each row of the list that a file holds with its number, counted from 1.

    Raises:
        DataError: When the text is not a JSON list, is cut short, or has an element that is not JSON; what
            comes after such an element can't be separated from it.
    """
    window = _Window(file)
    window.expect("[", "is no JSON list")
    number = 0
    while number or window.peek() != "]":
        number += 1
        value, source = window.value(number)
        try:
            yield (
                number,
                value
                if isinstance(value, DataError)
                else checked(value, "\\ud" in source or "\\uD" in source),
            )
        except DataError as error:
            yield number, error.at(line=number)
        if window.peek() == "]":
            break
        window.expect(",", f"is damaged or cut short after row {number}: ',' or ']' is missing")
    window.skip()
    if window.peek():
        raise DataError(f"something follows the list, after row {number}")


class _Window:
    """The part of a text that has been read and not yet used."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self.file = file
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.scan = json.JSONDecoder(object_pairs_hook=unique_keys).raw_decode
        self.text = ""
        self.at = 0
        self.num_bytes = 0
        self.is_whole = False

    def more(self, characters: int = 0) -> bool:
        """Read on, at least so much; return whether there was anything."""
        if self.is_whole:
            return False
        block = self.file.read(max(characters, BLOCK))
        try:
            decoded = self.decode(block, not block)
        except UnicodeDecodeError as error:
            raise DataError(
                f"is not UTF-8: byte {self.num_bytes + error.start} is 0x{error.object[error.start]:02x}"
            ) from error
        self.num_bytes += len(block)
        self.is_whole = not block
        self.text = self.text[self.at :] + decoded
        self.at = 0
        return bool(block)

    def peek(self) -> str:
        """Return the next character that is no white space; nothing at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def skip(self) -> None:
        """Leave the character that `peek` returned behind."""
        self.at += 1

    def expect(self, character: str, reason: str) -> None:
        """Leave a character behind that must come next."""
        if self.peek() != character:
            raise DataError(reason)
        self.skip()

    def end(self, number: int) -> int | None:
        """Return where a value ends of which nothing else can be used; None after reading on."""
        try:
            return LENIENT(self.text, self.at)[1]
        except ValueError as error:
            if len(self.text) - self.at > MAX_ROW or not self.more(len(self.text) - self.at):
                raise DataError(f"row {number} is not JSON that can be read, nor is what follows") from error
            return None

    def value(self, number: int) -> tuple[Any, str]:
        """Return the next value and its text, reading on until it is whole.

        A value that is whole and can't be used is a DataError.
        """
        self.peek()
        while True:
            try:
                value, end = self.scan(self.text, self.at)
            except json.JSONDecodeError as error:
                is_open = error.msg.startswith("Unterminated") or error.pos > len(self.text) - NEARLY
                if is_open and not self.is_whole:
                    if len(self.text) - self.at > MAX_ROW:
                        raise DataError(
                            f"row {number} has more than the {MAX_ROW:,} characters allowed"
                        ) from None
                    # Twice as much each time, so that a long row is not scanned once for every block.
                    self.more(len(self.text) - self.at)
                    continue
                raise DataError(
                    f"row {number} is not JSON or cut short, and nothing after it can be read: {error.msg}"
                ) from error
            except RecursionError as error:
                raise DataError(f"row {number} is not JSON that can be read, nor is what follows") from error
            except ValueError as error:  # a key twice; a number of thousands of digits
                if (after := self.end(number)) is None:
                    continue
                self.at = after
                return DataError(f"is not JSON that can be read: {error}", line=number), ""
            if end == len(self.text) and not self.is_whole:
                # A number could go on.
                self.more()
                continue
            source = self.text[self.at : end]
            self.at = end
            return value, source
