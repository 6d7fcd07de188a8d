"""The learning rate at its boundaries. tests/nets/test_golden.py compares the updates with PyTorch's."""

from __future__ import annotations

import keras
import pytest

from keras_resnet import learning_rate_schedule
from keras_resnet.recipes.optimizer import SGD


def rate_of_update(schedule: keras.optimizers.schedules.LearningRateSchedule, update: int) -> float:
    """Updates count from 1; iterations from 0."""
    return float(schedule(update - 1))


@pytest.mark.parametrize(
    ("update", "rate"),
    [(1, 0.1), (32_000, 0.1), (32_001, 0.01), (48_000, 0.01), (48_001, 0.001), (64_000, 0.001)],
)
def test_schedule(update: int, rate: float) -> None:
    assert rate_of_update(learning_rate_schedule(), update) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("update", "rate"), [(1, 0.01), (400, 0.01), (401, 0.1), (32_000, 0.1), (32_001, 0.01)]
)
def test_schedule_with_warmup_goes_back_to_the_full_rate(update: int, rate: float) -> None:
    schedule = learning_rate_schedule(warmup_steps=400)
    assert rate_of_update(schedule, update) == pytest.approx(rate)


@pytest.mark.parametrize("arguments", [{"steps": 2}, {"steps": 100, "warmup_steps": 50}])
def test_schedule_rejects_what_does_not_fit(arguments: dict) -> None:
    with pytest.raises(ValueError, match="warmup_steps must be below half"):
        learning_rate_schedule(**arguments)


def test_sgd_config_and_errors() -> None:
    optimizer = SGD(0.05, momentum=0.8, coupled_weight_decay=1e-3)
    assert SGD.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    with pytest.raises(ValueError, match="coupled_weight_decay must be 0 or more"):
        SGD(coupled_weight_decay=-1)
