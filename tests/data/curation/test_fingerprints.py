"""Fingerprints: what is nearly the same image is near, and what is another is not."""

from __future__ import annotations

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import drawing, encoded

from basereward.data.curation.fingerprints import (
    NUM_BITS,
    PerceptualIndex,
    perceptual_hash,
    shingles,
    words_of,
)
from basereward.media import Image


@pytest.mark.parametrize("seed", range(20))
def test_perceptual_hashes_survive_scaling_and_compression_and_tell_images_apart(seed: int) -> None:
    image = drawing(seed, side=200)
    original = perceptual_hash(Image(image))
    half = image.resize((200, 100), PIL.Image.Resampling.LANCZOS)
    for copy in (encoded(image, "JPEG", quality=40), encoded(half)):
        assert (perceptual_hash(Image(copy)) ^ original).bit_count() <= 6
    others = [perceptual_hash(Image(drawing(other, side=200))) for other in range(20) if other != seed]
    assert min((other ^ original).bit_count() for other in others) > 20


@given(st.lists(st.integers(0, 2**NUM_BITS - 1), max_size=20), st.integers(0, 12), st.data())
def test_the_index_finds_what_is_near_and_nothing_else(
    hashes: list[int], max_distance: int, data: st.DataObject
) -> None:
    index = PerceptualIndex(max_distance)
    for number, hash_ in enumerate(hashes):
        index.add(hash_, str(number))
    near_one = data.draw(st.sampled_from(hashes)) if hashes else 0
    flipped = data.draw(st.lists(st.integers(0, NUM_BITS - 1), max_size=16, unique=True))
    asked = near_one ^ sum(1 << bit for bit in flipped)
    expected = {
        str(number) for number, hash_ in enumerate(hashes) if (hash_ ^ asked).bit_count() <= max_distance
    }
    assert set(index.find(asked)) == expected


def test_words_of_scripts_without_spaces_are_their_letters() -> None:
    assert words_of("Ein Haus, 2 Häuser!") == ["ein", "haus", "2", "häuser"]
    assert words_of("猫 ok 犬です") == ["猫", "ok", "犬", "で", "す"]
    assert shingles("a b c d") == ["a b c", "b c d"]
    assert shingles("Yes!") == ["yes"]
