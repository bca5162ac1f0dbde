"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from basereward.training.ema import EMA


def weights(value: float = 1.0) -> dict[str, Tensor]:
    return {"w": nn.Parameter(torch.full((2, 2), value)), "running_mean": torch.full((2,), value)}


def move(trained: dict[str, Tensor], value: float) -> None:
    with torch.no_grad():
        for tensor in trained.values():
            tensor.fill_(value)


def test_an_average_forgets_slowly_but_for_its_first_steps() -> None:
    trained = weights(0.0)
    average = EMA(trained, 0.5)
    move(trained, 1.0)
    # After step 1 at most 2/11 of the first weights stay, after step 2 at most 3/12 of that.
    average.update(1)
    assert average.tensors["w"][0, 0].item() == pytest.approx(1 - 2 / 11)
    average.update(2)
    assert average.tensors["w"][0, 0].item() == pytest.approx(1 - 2 / 11 * 3 / 12)
    # (1 + 8) / (10 + 8) is the decay of 0.5; from there on the decay itself holds.
    average.update(1000)
    assert average.tensors["w"][0, 0].item() == pytest.approx(1 - 2 / 11 * 3 / 12 * 0.5)


def test_averages_are_of_parameters_alone_and_stand_in_their_places_for_as_long_as_asked() -> None:
    trained = weights(0.1)
    average = EMA(trained, 0.9)
    move(trained, 0.7)
    average.update(1)
    kept, averaged = trained["w"].detach().clone(), average.tensors["w"].clone()
    assert average.tensors.keys() == {"w"}
    with average.applied():
        assert torch.equal(trained["w"], averaged)
        assert trained["running_mean"].tolist() == pytest.approx([0.7, 0.7])
        with average.applied():
            assert torch.equal(trained["w"], averaged)
        assert torch.equal(trained["w"], averaged)
    assert torch.equal(trained["w"], kept)
    assert torch.equal(average.tensors["w"], averaged)
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert torch.equal(trained["w"], kept)


def test_no_decay_is_no_average() -> None:
    trained = weights(0.1)
    average = EMA(trained, 0.0)
    move(trained, 0.7)
    average.update(1)
    assert average.tensors == {}
    with average.applied():
        assert trained["w"][0, 0].item() == pytest.approx(0.7)
