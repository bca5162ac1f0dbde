"""Choosing the best evaluation."""

from __future__ import annotations

import pytest

from basereward import ConfigError
from basereward.config import TrainConfig
from basereward.training.model_selection import ModelSelector


@pytest.mark.parametrize(
    ("best_by", "new", "old", "expected"),
    [
        ("accuracy", 0.8, 0.7, True),
        ("accuracy", 0.7, 0.8, False),
        ("auc", 0.8, 0.7, True),
        ("log_loss", 0.8, 0.7, False),
        ("log_loss", 0.7, 0.8, True),
        ("-log_loss", 0.7, 0.8, True),
        ("-reward_std", 0.7, 0.8, True),
        ("reward_std", 0.7, 0.8, False),
    ],
)
def test_the_metric_says_which_is_better(best_by: str, new: float, old: float, expected: bool) -> None:
    name = best_by.removeprefix("-")
    selector = ModelSelector(TrainConfig(best_by=best_by))
    assert selector.is_better({"log_loss": 0.0, name: new}, {"log_loss": 1.0, name: old}) is expected
    assert selector.is_better({name: new}, {})


def test_of_equal_ones_the_lower_loss_is_better_and_then_the_earlier() -> None:
    selector = ModelSelector(TrainConfig())
    old = {"accuracy": 0.5, "log_loss": 0.7}
    assert selector.is_better({"accuracy": 0.5, "log_loss": 0.6}, old)
    assert not selector.is_better(old, old)


def test_patience_counts_evaluations_since_the_best() -> None:
    assert not ModelSelector(TrainConfig()).stops_early(10**6)
    assert [ModelSelector(TrainConfig(patience=2)).stops_early(number) for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]


def test_a_metric_that_there_is_not_is_named_before_training_starts() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelSelector(TrainConfig(best_by="-logloss"))
    assert str(caught.value) == (
        "train.best_by: there is no metric 'logloss'; did you mean 'log_loss'? metrics: accuracy, low, high, "
        "num_pairs, num_comparisons, top1, margin, margin_std, auc, log_loss, brier, ece, longer_baseline, "
        "temperature, reward_mean, reward_std"
    )
