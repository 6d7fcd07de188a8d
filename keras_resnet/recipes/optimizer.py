"""The optimizer: SGD with momentum and *coupled* weight decay, as in the paper and PyTorch."""

from typing import Any

import keras
from keras import ops

from keras_resnet.errors import number

_KerasSGD: Any = keras.optimizers.SGD
if keras.backend.backend() == "torch":
    # On PyTorch, SGD() makes an instance of a subclass, which updates all variables in a few calls. On JAX,
    # an instance made here would start the devices before `hosts.join`.
    _KerasSGD = type(keras.optimizers.SGD())


@keras.saving.register_keras_serializable(package="keras_resnet")
class SGD(_KerasSGD):
    """`keras.optimizers.SGD` whose weight decay enters the gradient, as in the paper and PyTorch.

        g = g + coupled_weight_decay * w;  v = momentum * v - learning_rate * g;  w = w + v

    Keras's own `weight_decay` subtracts `learning_rate * weight_decay * w` outside the momentum: at
    momentum 0.9 that is ten times weaker. Ours applies to every trainable variable, batch
    normalization's and biases too, as `torch.optim.SGD(model.parameters(), weight_decay=...)` does.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: 0..1.
        coupled_weight_decay: 0 or more.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        coupled_weight_decay: float = 1e-4,
        name: str = "sgd",
        **kwargs: Any,
    ):
        if not callable(learning_rate):
            number("learning_rate", learning_rate)
        number("momentum", momentum)
        decay = number("coupled_weight_decay", coupled_weight_decay)
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        self.coupled_weight_decay = decay
        if decay < 0:
            raise ValueError(f"coupled_weight_decay must be 0 or more. Received: {decay}")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        decay = ops.cast(self.coupled_weight_decay, variable.dtype)
        gradient = ops.add(ops.cast(gradient, variable.dtype), ops.multiply(variable, decay))
        super().update_step(gradient, variable, learning_rate)

    def _parallel_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        """PyTorch's `update_step`, of all variables at once."""
        import torch

        values = [v.value for v in variables]
        grads = torch._foreach_add(grads, values, alpha=self.coupled_weight_decay)
        super()._parallel_update_step(list(grads), variables, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coupled_weight_decay": self.coupled_weight_decay}
