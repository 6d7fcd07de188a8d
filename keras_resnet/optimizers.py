"""The paper's optimizer: SGD with momentum and *coupled* weight decay, and its learning rate."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_resnet")
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` whose weight decay enters the gradient, as in the paper and PyTorch.

        g = g + coupled_weight_decay * w;  v = momentum * v - learning_rate * g;  w = w + v

    Keras's own `weight_decay` subtracts `learning_rate * weight_decay * w` outside the momentum: at
    momentum 0.9 that is ten times weaker. It applies to every trainable variable, batch
    normalisation's and biases too, as `torch.optim.SGD(model.parameters(), weight_decay=...)` does.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: 0..1.
        coupled_weight_decay: 0 or more.

    Raises:
        ValueError: if `coupled_weight_decay` is negative.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        coupled_weight_decay: float = 1e-4,
        name: str = "sgd",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        if coupled_weight_decay < 0:
            raise ValueError(
                "coupled_weight_decay must be 0 or more. "
                f"Received: coupled_weight_decay={coupled_weight_decay}"
            )
        self.coupled_weight_decay = float(coupled_weight_decay)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        decay = ops.cast(self.coupled_weight_decay, variable.dtype)
        gradient = ops.add(ops.cast(gradient, variable.dtype), ops.multiply(variable, decay))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coupled_weight_decay": self.coupled_weight_decay}


def learning_rate_schedule(
    learning_rate: float = 0.1, steps: int = 64_000, warmup_steps: int = 0
) -> keras.optimizers.schedules.PiecewiseConstantDecay:
    """The paper's schedule (section 4.2): a tenth after half of the updates, a hundredth after 3/4.

    Args:
        learning_rate: rate of the first half, above 0 (the paper: 0.1).
        steps: updates of the whole run (the paper: 64,000, so the drops come after exactly 32,000
            and 48,000 updates).
        warmup_steps: updates at a tenth of `learning_rate` before it (the paper: 400 for 110 layers),
            less than half of `steps`.

    Returns:
        Schedule of `optimizer.iterations`, the number of updates made so far.

    Raises:
        ValueError: if the pieces do not fit into `steps`.
    """
    boundaries = [steps // 2, steps * 3 // 4]
    rates = [learning_rate, learning_rate / 10, learning_rate / 100]
    if warmup_steps:
        boundaries, rates = [warmup_steps, *boundaries], [learning_rate / 10, *rates]
    if boundaries != sorted(set(boundaries)) or boundaries[0] < 1:
        raise ValueError(
            "warmup_steps must be below half of steps, and steps at least 4. "
            f"Received: warmup_steps={warmup_steps}, steps={steps}"
        )
    # Keras keeps the old value while `step <= boundary`, and iterations count from 0: n updates at
    # the first rate are the iterations 0..n-1.
    return keras.optimizers.schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], rates)
