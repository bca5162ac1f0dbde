"""Conversion of a run file's values to annotations; `tests/plugins/test_options.py` has the messages."""

from __future__ import annotations

import pytest

from basereward.config.conversion import ValidationError, convert


def test_an_error_has_the_path_to_the_value() -> None:
    with pytest.raises(ValidationError) as error:
        convert({"a": [1, "x"]}, dict[str, tuple[int, ...]], ("top",))
    assert error.value.path == ("top", "a", "1")
