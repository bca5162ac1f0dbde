"""The errors that a user of BaseReward can cause, each of which says what to write instead."""

from __future__ import annotations

MAX_SHOWN = 80
"""Characters of a value that an error shows."""


def shown(value: object) -> str:
    """Return a value as an error shows it, cut short; an integer may have more digits than Python writes."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


class BaseRewardError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(BaseRewardError):
    """A run file, an option or a command line that can't be carried out."""


class PluginError(BaseRewardError):
    """A component that is unknown, ambiguous or fails to load."""


class ModelError(BaseRewardError):
    """A model directory that is incomplete, damaged or not what it says it is."""


class ColumnWarning(UserWarning):
    """A column of a published data set that is not read."""


class RefusedRowsWarning(UserWarning):
    """A data set most of whose rows can't be used."""


class ScaleWarning(UserWarning):
    """Members of an ensemble whose rewards are on scales so different that some of them have no say."""


class DataError(BaseRewardError):
    """A row of data that can't be used, with its file and line as far as they are known.

    Args:
        reason: The mistake, and the allowed values.
        file: The file the row came from.
        line: Its line in a text file, its row in a table; counted from 1.
        field: The field of the row that is at fault.
    """

    def __init__(
        self, reason: str, *, file: str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        self.reason = reason
        self.file = file
        self.line = line
        self.field = field
        place = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(": ".join(part for part in (place, field, reason) if part))

    def at(self, *, file: str | None = None, line: int | None = None) -> DataError:
        """Return this error with the parts of its place that were unknown filled in."""
        return type(self)(
            self.reason,
            file=self.file if self.file is not None else file,
            line=self.line if self.line is not None else line,
            field=self.field,
        )


class TooLongError(DataError):
    """A row whose texts and images are more tokens than the model may read."""
