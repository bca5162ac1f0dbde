"""Each published data set, read in its real format, means what its publishers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published import SETS, only, write_set

from basereward.plugins.builtin import basereward_datasets


def test_every_registered_data_set_has_a_fixture() -> None:
    assert sorted(SETS) == sorted(basereward_datasets())


@pytest.mark.parametrize("name", SETS)
def test_a_row_in_the_real_format_becomes_its_comparison(tmp_path: Path, name: str) -> None:
    expected = SETS[name]
    comparison = only(name, write_set(tmp_path, name), **expected.options)
    [message] = comparison.prompt
    assert (message.role, message.text.strip()) == ("user", expected.prompt.strip())
    assert list(comparison.responses) == expected.responses
    assert comparison.ranks is not None
    assert list(comparison.ranks) == expected.ranks
    assert comparison.ratings == (None if expected.ratings is None else pytest.approx(expected.ratings))
    assert [image.open().getpixel((0, 0)) for image in comparison.images] == [
        (255, 0, 0)
    ] * expected.num_images
    if expected.id is not None:
        assert comparison.id == expected.id


@pytest.mark.parametrize("name", [name for name in SETS if SETS[name].container == "parquet"])
def test_a_parquet_set_is_read_alike_from_what_datasets_saves(tmp_path: Path, name: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    file = write_set(tmp_path, name)
    saved = tmp_path / "saved"
    saved.mkdir()
    table = pyarrow.parquet.read_table(file)
    with pyarrow.ipc.new_stream(str(saved / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table)
    (saved / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"})
    )
    options = {**SETS[name].options, "source": "set"}
    from_arrow, from_parquet = (only(name, path, **options) for path in (saved, file))
    assert (from_arrow.prompt, from_arrow.responses, from_arrow.ranks, from_arrow.ratings) == (
        from_parquet.prompt,
        from_parquet.responses,
        from_parquet.ranks,
        from_parquet.ratings,
    )
