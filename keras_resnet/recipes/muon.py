"""Muon: the steps of kernels are orthogonal and of a fixed length; SGD trains all other variables.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", and Jordan's
cifar10-airbench, which also holds the length of the kernels. `keras.optimizers.Muon` (3.15) gives
convolutions to Adam.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_resnet.errors import number
from keras_resnet.recipes.optimizer import SGD

# Of each Newton-Schulz iteration x = a x + b x xT x + c x xT x xT x (Jordan et al. 2024): steep at zero, so
# that five of them bring singular values from 0.01 to 1 near 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPSILON = 1e-7  # against division by zero


@keras.saving.register_keras_serializable(package="keras_resnet")
class Muon(SGD):
    """SGD with Nesterov momentum that makes the steps of kernels orthogonal.

    A kernel w is a matrix with a column per filter. With its gradient g,

        m = momentum * m + g;  u = orthogonal(g + momentum * m)
        w = w * sqrt(filters) / |w| - learning_rate * kernel_scale * u

    A batch normalization must follow the kernel: then the kernel's length changes no output, and is held
    at sqrt(filters) in place of a weight decay. `SGD` trains all other variables.

    Args:
        learning_rate: of SGD; float or `keras.optimizers.schedules.LearningRateSchedule`.
        momentum: 0..1.
        coupled_weight_decay: of SGD, 0 or more.
        kernels: paths of the variables that Muon trains, of two axes or more, the last of them the filters.
        kernel_scale: a kernel's learning rate, in units of `learning_rate`.

    Raises:
        ValueError: for `nesterov=False`; when it is built, if a kernel is not among the variables.
    """

    def __init__(
        self,
        learning_rate: Any = 0.2,
        momentum: float = 0.9,
        coupled_weight_decay: float = 5e-4,
        kernels: Sequence[str] = (),
        kernel_scale: float = 0.1,
        name: str = "muon",
        **kwargs: Any,
    ):
        if not kwargs.setdefault("nesterov", True):
            raise ValueError("nesterov must be True: Muon always looks ahead. Received: False")
        super().__init__(learning_rate, momentum, coupled_weight_decay, name, **kwargs)
        self.kernels, self.kernel_scale = tuple(kernels), number("kernel_scale", kernel_scale)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        paths = [variable.path for variable in variables]
        if missing := sorted(set(self.kernels) - set(paths)):
            raise ValueError(f"kernels must be paths of trainable variables. Received: {missing}")
        self._kernel_indices = frozenset(paths.index(kernel) for kernel in self.kernels)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if index not in self._kernel_indices:
            super().update_step(gradient, variable, learning_rate)
            return
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype) * self.kernel_scale
        ahead = gradient
        if self.momentum:  # Keras makes no slots without momentum
            slot = self.momentums[index]
            momentum = slot * self.momentum + gradient
            self.assign(slot, momentum)
            ahead = gradient + self.momentum * momentum
        step = orthogonal(ahead)
        held = math.sqrt(variable.shape[-1]) / (ops.sqrt(ops.sum(ops.square(variable))) + _EPSILON)
        self.assign(variable, variable * held - rate * step)

    def _parallel_update_step(self, grads: Any, variables: Any, learning_rate: Any) -> None:
        others: tuple[list[Any], list[Any]] = [], []
        for gradient, variable in zip(grads, variables, strict=True):
            if self._get_variable_index(variable) in self._kernel_indices:
                self.update_step(gradient, variable, learning_rate)
            else:
                others[0].append(gradient)
                others[1].append(variable)
        if others[0]:
            super()._parallel_update_step(*others, learning_rate)

    def get_config(self) -> dict[str, Any]:
        own = {"kernels": list(self.kernels), "kernel_scale": self.kernel_scale}
        return {**super().get_config(), **own}


def orthogonal(kernel: Any) -> Any:
    """A kernel `(..., filters)` as a matrix whose singular values are brought near 1 (0.68 to 1.2).

    The iterations are polynomials of a Gram matrix, which commute. So they run on the smaller Gram matrix,
    and the kernel's matrix is multiplied twice, not ten times.
    """
    a, b, c = _COEFFICIENTS
    x = ops.reshape(kernel, (-1, kernel.shape[-1]))
    rows, columns = x.shape
    gram = ops.matmul(x, ops.transpose(x)) if rows < columns else ops.matmul(ops.transpose(x), x)
    # A bound of the largest singular value, as the iterations need, and tighter than |x|.
    length = ops.sqrt(ops.norm(gram)) + _EPSILON
    gram = gram / (length * length)
    identity = ops.eye(min(rows, columns), dtype=kernel.dtype)
    product = identity
    for k in range(_ITERATIONS):
        factor = a * identity + b * gram + c * ops.matmul(gram, gram)
        product = ops.matmul(product, factor) if k else factor
        if k < _ITERATIONS - 1:
            gram = ops.matmul(ops.matmul(gram, factor), factor)
    product = product / length
    x = ops.matmul(product, x) if rows < columns else ops.matmul(x, product)
    return ops.reshape(x, kernel.shape)
