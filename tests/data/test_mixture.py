"""The mixture: quotas are what the settings say, and an epoch is the same from wherever it is entered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basereward.config import MixtureConfig, Source
from basereward.data.mixture import drawn_rows, interleaved, quotas, streamed
from basereward.errors import ConfigError, DataError

Row = tuple[int, int]


def mixed(
    sizes: list[int],
    sources: list[Source] | None = None,
    images: list[bool] | None = None,
    **settings: float,
) -> list[int]:
    return quotas(
        sizes,
        images or [False] * len(sizes),
        sources or [Source("x")] * len(sizes),
        MixtureConfig(**settings),  # type: ignore[arg-type]
    )


def test_without_settings_every_row_is_drawn_once() -> None:
    assert mixed([3, 0, 5]) == [3, 0, 5]
    assert drawn_rows(5, 5, offset=123) == [0, 1, 2, 3, 4]


def test_weight_repeats_rows_and_max_rows_caps_them_before() -> None:
    sources = [Source("a", weight=2.5), Source("b", max_rows=10, weight=0.5), Source("c", weight=0)]
    assert mixed([4, 100, 7], sources) == [10, 5, 0]


def test_temperature_makes_sources_more_alike_and_keeps_the_sum() -> None:
    # 900 : 100 at temperature 2 is 30 : 10, so 750 : 250 of 1000.
    assert mixed([900, 100], temperature=2) == [750, 250]
    assert mixed([900, 100], temperature=1e9) == [500, 500]


def test_multimodal_share_moves_rows_between_the_two_kinds_only() -> None:
    # Of 600 rows two thirds are 400, which 300 and 100 share as 3 : 1.
    num_draws = mixed([300, 100, 200], images=[True, True, False], multimodal_share=2 / 3)
    assert num_draws == [300, 100, 200]
    assert mixed([300, 100, 200], images=[True, True, False], multimodal_share=0.5) == [225, 75, 300]
    assert mixed([300, 200], images=[True, False], multimodal_share=0) == [0, 500]


def test_a_share_that_no_data_set_can_fill_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        mixed([3, 4], multimodal_share=0.5)
    assert str(caught.value) == (
        "data.mixture.multimodal_share is 0.5, but no data set with images is in data.train; add one, or "
        "say by its key 'multimodal' which it is"
    )
    with pytest.raises(ConfigError) as caught:
        mixed([3], [Source("a", weight=0)])
    assert str(caught.value) == (
        "data.train: every data set with rows has weight 0; give one a weight above 0"
    )


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=6),
    st.floats(0.2, 20),
    st.floats(0, 1),
)
def test_quotas_keep_the_length_of_the_epoch(sizes: list[int], temperature: float, share: float) -> None:
    images = [number % 2 == 0 for number in range(len(sizes))]
    if any(sizes[::2]) and any(sizes[1::2]):
        num_draws = mixed(sizes, images=images, temperature=temperature, multimodal_share=share)
        # Rounding may move less than one row for each data set.
        assert abs(sum(num_draws[::2]) - share * sum(sizes)) < len(sizes)
    else:
        num_draws = mixed(sizes, temperature=temperature)
    assert sum(num_draws) == sum(sizes)
    assert all(quota >= 0 for quota in num_draws)


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 2**64))
def test_draws_repeat_no_row_more_than_needed_and_every_row_has_its_turn(
    size: int, quota: int, offset: int
) -> None:
    counts = Counter(drawn_rows(size, quota, offset))
    assert counts.total() == quota
    assert all(counts[row] in (quota // size, quota // size + 1) for row in range(size))
    rest = quota % size
    if rest:
        later = {row for step in range(-(-size // rest)) for row in drawn_rows(size, rest, offset + step)}
        assert later == set(range(size))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_interleaving_keeps_every_beginning_in_proportion(counts: list[int]) -> None:
    order = list(interleaved(counts))
    assert Counter(order) == Counter({number: count for number, count in enumerate(counts) if count})
    seen: Counter[int] = Counter()
    for place, number in enumerate(order, start=1):
        seen[number] += 1
        for other, count in enumerate(counts):
            # Never further from its due share than one draw of each data set.
            assert abs(seen[other] - place * count / len(order)) <= len(counts)


def rows(source: int, size: int) -> Iterator[Row]:
    return ((source, row) for row in range(size))


def readers(sizes: list[int]) -> list[Callable[[], Iterator[Row]]]:
    return [partial(rows, number, size) for number, size in enumerate(sizes)]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    weights=st.lists(st.sampled_from([0.0, 0.4, 1.0, 2.5]), min_size=4, max_size=4),
    epoch=st.integers(0, 3),
    window=st.integers(1, 20),
    seed=st.integers(0, 2**63 - 1),
    data=st.data(),
)
def test_a_stream_entered_anywhere_goes_on_alike_and_draws_what_memory_would(
    sizes: list[int], weights: list[float], epoch: int, window: int, seed: int, data: st.DataObject
) -> None:
    shares = [round(size * weight) for size, weight in zip(sizes, weights, strict=False)]

    def stream(position: int) -> list[Row]:
        return list(
            streamed(
                readers(sizes),
                sizes,
                shares,
                epoch=epoch,
                position=position,
                seed=seed,
                window=window,
            )
        )

    whole = stream(0)
    counts = Counter(whole)
    for number, (size, quota) in enumerate(zip(sizes, shares, strict=True)):
        of_source = [counts[number, row] for row in range(size)]
        assert sum(of_source) == quota
        assert max(of_source) - min(of_source) <= 1
    position = data.draw(st.integers(0, len(whole)))
    assert stream(position) == whole[position:]


def test_a_window_is_shuffled_and_holds_no_more_rows_than_it_should() -> None:
    num_read = 0

    def read() -> Iterator[int]:
        nonlocal num_read
        for row in range(1000):
            num_read += 1
            yield row

    stream = streamed([read], [1000], [1000], epoch=0, position=0, seed=1, window=50)
    items = [next(stream) for _ in range(50)]
    assert num_read == 50
    assert sorted(items) == list(range(50)) != items
    other = streamed([read], [1000], [1000], epoch=1, position=0, seed=1, window=50)
    assert [next(other) for _ in range(50)] != items
    plain = streamed([read], [1000], [1000], epoch=0, position=0, seed=1, window=1)
    assert [next(plain) for _ in range(50)] == list(range(50))


def test_a_data_set_with_fewer_rows_than_it_said_is_read_again() -> None:
    stream = streamed([partial(range, 3)], [5], [5], epoch=0, position=0, seed=0, window=1)
    assert list(stream) == [0, 1, 2, 0, 1]


def test_a_data_set_without_rows_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(DataError) as caught:
        list(streamed([lambda: iter(())], [5], [5], epoch=0, position=0, seed=0, window=1))
    assert str(caught.value) == "the data set has no rows, though it said that it has some"
