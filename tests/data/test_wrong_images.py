"""Wrong images: which rows have a copy, whose images it has, and that losses without ties refuse it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny

from basereward.comparison import Comparison
from basereward.config import Source
from basereward.data import Dataset
from basereward.data.wrong_images import WrongImages, check_ties_are_learned
from basereward.errors import ConfigError, DataError
from basereward.losses import BradleyTerry


class Rows(Dataset):
    """Eight rows with images, the second with that of the first; then a bad one, and one without image."""

    def read(self) -> Iterator[Comparison | DataError]:
        """Yield them."""
        for number in range(8):
            image = tiny.image(28, 28, seed=max(number, 1))
            yield Comparison(
                "What is <image>?", ["a", "b"], images=[image], ranks=[1, 0], id=str(number), weight=2.0
            )
        yield DataError("is bad")
        yield Comparison("What?", ["a", "b"], ratings=[2, 1], id="text")

    @property
    def num_rows(self) -> int:
        """As many as `read` yields."""
        return 10


def test_copies_are_tied_and_have_the_images_of_an_earlier_row() -> None:
    dataset = WrongImages(Rows(), 1.0)
    rows = list(dataset)
    assert [error.reason for error in dataset.rejected] == ["is bad"]
    # Before row 0 there is none, and row 1 finds its own image only.
    copies = [row for row in rows if row.id.endswith("#wrong-image")]
    assert [row.id for row in copies] == [f"{number}#wrong-image" for number in range(2, 8)]
    by_id = {row.id: row for row in rows}
    for copy in copies:
        own = by_id[copy.id.partition("#")[0]]
        [image] = copy.images
        assert image == by_id[copy.meta["images_of"]].images[0]
        assert int(copy.meta["images_of"]) < int(own.id)
        assert image != own.images[0]
        assert (copy.ranks, copy.ratings, copy.weight) == ((0.0, 0.0), None, 2.0)
        assert copy.prompt[0].text == own.prompt[0].text
        assert rows.index(copy) == rows.index(own) + 1
    assert [row for row in rows if row not in copies] == list(Rows())
    assert list(dataset) == rows  # the same every time


def test_copies_are_spread_evenly() -> None:
    rows = [row.id for row in WrongImages(Rows(), 0.5)]
    # Rows with images number 2, 4, 6 and 8 of eight; the first of them has its own image before it only.
    assert [id for id in rows if "#" in id] == ["3#wrong-image", "5#wrong-image", "7#wrong-image"]
    dataset = WrongImages(Rows(), 0.5)
    assert dataset.count() == dataset.num_rows == 15


def test_a_loss_that_ignores_ties_is_refused() -> None:
    sources = (Source("basereward"), Source("basereward", wrong_images=0.5))
    expected = (
        "data.train.1.wrong_images is 0.5, which adds ties, and loss BradleyTerry learns nothing from ties; "
        'write ties = "half" in [loss], or leave wrong_images out'
    )
    with pytest.raises(ConfigError) as error:
        check_ties_are_learned(sources, BradleyTerry())
    assert str(error.value) == expected
    check_ties_are_learned(sources, BradleyTerry(ties="half"))
    check_ties_are_learned(sources[:1], BradleyTerry())
