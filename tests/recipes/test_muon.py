"""Muon against a NumPy build in float64, and what it may and may not change. Runs on every backend."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import pytest
from keras import ops

import keras_resnet
from keras_resnet.recipes import FAST
from keras_resnet.recipes.muon import Muon, orthogonal
from keras_resnet.recipes.optimizer import SGD
from keras_resnet.training.model import normalized_kernels, optimizer_of

KERNELS = {"stem": (3, 3, 3, 16), "square": (3, 3, 32, 32), "wider": (3, 3, 16, 32)}
WIDE = (1, 1, 16, 32)
OTHERS = {"gamma": (16,), "head": (64, 10)}
TALL = [*KERNELS.values(), (3, 3, 64, 64), (64, 10)]


# --- the NumPy build ------------------------------------------------------------------------------


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five iterations x = a x + b (x xT) x + c (x xT)^2 x, from the fourth root of the sum of s^4 on."""
    x = matrix / np.sqrt(np.linalg.norm(matrix.T @ matrix))
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    return x


class Reference:
    """Issue 26's formulas for one variable, in float64."""

    def __init__(self, value: np.ndarray, is_kernel: bool):
        self.value, self.is_kernel = value.astype(np.float64), is_kernel
        self.slot = np.zeros_like(self.value)

    def update(self, g: np.ndarray, rate: float, scale: float = 0.1, decay: float = 5e-4) -> None:
        if self.is_kernel:
            self.slot = 0.9 * self.slot + g
            filters = g.shape[-1]
            u = newton_schulz((g + 0.9 * self.slot).reshape(-1, filters)).reshape(g.shape)
            length = np.linalg.norm(self.value)
            self.value = self.value * np.sqrt(filters) / length - rate * scale * u
        else:
            g = g + decay * self.value
            self.slot = 0.9 * self.slot - rate * g
            self.value = self.value + 0.9 * self.slot - rate * g


# --- help -----------------------------------------------------------------------------------------


def random(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def with_spectrum(rows: int, columns: int, values: np.ndarray) -> np.ndarray:
    """A random matrix that has these singular values."""
    left, right = (np.linalg.qr(random((n, len(values)), seed=n))[0] for n in (rows, columns))
    return ((left * values) @ right.T).astype(np.float32)


def spectra(count: int, span: float) -> list[np.ndarray]:
    """Singular values from 1 down to 1 / span: geometric, linear, all but one large, all but one small."""
    return [
        np.geomspace(1, 1 / span, count),
        np.linspace(1, 1 / span, count),
        np.r_[np.ones(count - 1), 1 / span],
        np.r_[1, np.full(count - 1, 1 / span)],
    ]


def orthogonal_of(gradient: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(gradient)))


def singular_values(kernel: np.ndarray) -> np.ndarray:
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]).astype(np.float64))[1]


def variables_of(shapes: dict[str, Sequence[int]]) -> list[keras.Variable]:
    return [
        keras.Variable(random(shape, seed=k), name=name)
        for k, (name, shape) in enumerate(shapes.items())
    ]


def values_of(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [ops.convert_to_numpy(variable.value) for variable in variables]


def apply(
    optimizer: keras.optimizers.Optimizer,
    variables: list[keras.Variable],
    gradients: list[np.ndarray],
) -> None:
    """One update, as `fit` makes it: on JAX, the loss scaling works on values alone."""
    tensors = [ops.convert_to_tensor(g) for g in gradients]
    if keras.backend.backend() != "jax":
        optimizer.apply(tensors)
        return
    every = [*variables, *optimizer.variables]
    new, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], tensors, [v.value for v in variables]
    )
    for variable, value in zip(every, [*new, *state], strict=True):
        variable.assign(value)


def built(variables: list[keras.Variable], *arguments: object, **options: object) -> Muon:
    """Muon for a list of variables, those of four axes as kernels."""
    kernels = [variable.path for variable in variables if len(variable.shape) == 4]
    optimizer = Muon(*arguments, kernels=kernels, **options)  # type: ignore[arg-type]
    optimizer.build(variables)
    return optimizer


def updated(updates: int = 1, **options: object) -> list[np.ndarray]:
    """One kernel and one other variable after some updates; the same gradients in each call."""
    variables = variables_of({"kernel": (3, 3, 16, 16), "gamma": (16,)})
    optimizer = built(variables, **options)
    for k in range(updates):
        optimizer.apply([ops.convert_to_tensor(random(v.shape, 100 + k)) for v in variables])
    return values_of(variables)


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", TALL, ids=str)
def test_a_random_tall_gradient_is_made_orthogonal(shape: Sequence[int]) -> None:
    gradient = random(shape)
    step = orthogonal_of(gradient)
    expected = newton_schulz(gradient.reshape(-1, shape[-1]).astype(np.float64))
    np.testing.assert_allclose(step.reshape(expected.shape), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e6])
@pytest.mark.parametrize("size", [(144, 16), (16, 32), (32, 64)], ids=str)
def test_any_spectrum_that_spans_a_factor_of_100_comes_near_1(
    size: tuple[int, int], scale: float
) -> None:
    for values in spectra(min(size), 100):
        gradient = scale * with_spectrum(*size, values)
        step = orthogonal_of(gradient.astype(np.float32))
        expected = newton_schulz(gradient.astype(np.float64))
        # The Gram matrix squares the span: roundings of 6e-8 are 6e-4 of its smallest value.
        # And where a gradient is short, the 1e-7 shows that keeps one of zeros at zero.
        np.testing.assert_allclose(step, expected, rtol=0, atol=5e-4 if scale >= 1 else 5e-3)
        found = singular_values(step)
        assert found.min() > 0.6 and found.max() < 1.25
    for values in spectra(min(size), 1e9):  # and none is ever above
        step = orthogonal_of(np.float32(scale) * with_spectrum(*size, values))
        assert singular_values(step).max() < 1.25


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), WIDE], ids=str)
def test_gradients_of_zero_and_of_rank_one(shape: Sequence[int]) -> None:
    assert not orthogonal_of(np.zeros(shape, np.float32)).any()
    gradient = np.outer(random((np.prod(shape[:-1]),)), random(shape[-1:], seed=1))
    values = singular_values(orthogonal_of(gradient.reshape(shape).astype(np.float32)))
    assert 0.6 < values[0] < 1.25 and values[1] < 1e-2


@pytest.mark.parametrize("updates", [1, 10])
def test_updates_are_those_of_the_numpy_build(updates: int) -> None:
    shapes = {**KERNELS, "wide": WIDE, "poor": (3, 3, 3, 16), **OTHERS}
    variables = variables_of(shapes)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.2, warmup_steps=3)
    optimizer = built(variables, schedule, 0.9, 5e-4, kernel_scale=0.1)
    references = [Reference(v, v.ndim == 4) for v in values_of(variables)]
    for k in range(updates):
        gradients = [random(shape, seed=50 * k + n) for n, shape in enumerate(shapes.values())]
        poor = with_spectrum(27, 16, spectra(16, 100)[k % 4])
        gradients[list(shapes).index("poor")] = poor.reshape(shapes["poor"])
        rate = float(schedule(k))
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients])
        for reference, gradient in zip(references, gradients, strict=True):
            reference.update(gradient, rate)
    assert int(optimizer.iterations) == updates
    for name, value, reference in zip(shapes, values_of(variables), references, strict=True):
        error = np.abs(value - reference.value).max() / max(1, np.abs(reference.value).max())
        assert error < (1e-4 if name in ("wide", "poor") else 1e-6), name


def test_the_length_of_a_kernel_is_held_at_the_root_of_its_filters() -> None:
    for updates in (1, 30):
        kernel = updated(updates, learning_rate=0.2)[0]
        assert np.linalg.norm(kernel) == pytest.approx(4, rel=0.02 * 1.25)
    kernel = updated(learning_rate=0.0)[0]
    assert np.linalg.norm(kernel) == pytest.approx(4, rel=1e-6)


# --- who is trained by what ----------------------------------------------------------------------


def test_the_learning_rate_scales_both_groups() -> None:
    start = [4 * v / np.linalg.norm(v) if v.ndim == 4 else v for v in
             (random((3, 3, 16, 16), 0), random((16,), 1))]  # fmt: skip
    one, two = (updated(learning_rate=r, coupled_weight_decay=0.0) for r in (0.1, 0.2))
    for begin, small, large in zip(start, one, two, strict=True):
        np.testing.assert_allclose(large - begin, 2 * (small - begin), rtol=0, atol=2e-6)
    assert FAST.resolve(20, learning_rate=0.1).kernel_rate == pytest.approx(0.01)
    net = keras_resnet.resnet(8)
    for rate in (0.2, 0.05):
        optimizer = optimizer_of(FAST.resolve(8, learning_rate=rate), net)
        assert optimizer.kernel_scale == pytest.approx(0.1)


def test_what_is_no_kernel_is_trained_as_by_sgd() -> None:
    shapes: dict[str, Sequence[int]] = {"kernel": (3, 3, 16, 16), **OTHERS}
    ours, theirs = variables_of(shapes), variables_of(shapes)
    muon, sgd = built(ours, 0.1, 0.9, 1e-3), SGD(0.1, 0.9, 1e-3, nesterov=True)
    for k in range(5):
        gradients = [ops.convert_to_tensor(random(v.shape, k)) for v in ours]
        muon.apply(gradients, ours)
        sgd.apply(gradients, theirs)
    for mine, other in list(zip(values_of(ours), values_of(theirs), strict=True))[1:]:
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("shortcut", ["zeropad", "projection"])
def test_of_our_nets_every_convolution_is_trained_by_muon(shortcut: str) -> None:
    net = keras_resnet.resnet(8, shortcut=shortcut)
    optimizer = optimizer_of(FAST.resolve(8), net)
    assert isinstance(optimizer, Muon)
    kernels = {v.path for v in net.trainable_variables if v.path.endswith("/kernel")}
    assert set(optimizer.kernels) == kernels - {"head_dense/kernel"}


def test_a_kernel_without_batch_normalisation_behind_it_stays_with_sgd() -> None:
    """In a net of a user's own: its length is not free there."""
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="no_norm", activation="relu")(image)
    x = layers.Conv2D(4, 3, name="norm", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    both = layers.Conv2D(4, 1, name="used_twice")(x)
    x = layers.Add()([layers.BatchNormalization()(both), both])
    x = layers.Dense(6, name="dense_norm")(layers.Flatten()(x))
    x = layers.Dense(2, name="head")(layers.BatchNormalization()(x))
    net = keras.Model(image, x)
    assert normalized_kernels(net) == ["norm/kernel", "dense_norm/kernel"]
    net.compile(optimizer_of(FAST.resolve(8, steps=100), net), "mse")
    before = {v.path: ops.convert_to_numpy(v.value) for v in net.trainable_variables}
    for k in range(2):  # the rate of the first update is 0
        net.train_on_batch(random((16, 8, 8, 3), k), random((16, 2), k))
    for variable in net.trainable_variables:
        value = ops.convert_to_numpy(variable.value)
        assert np.isfinite(value).all() and not np.array_equal(value, before[variable.path])
    lengths = {
        v.path: np.linalg.norm(ops.convert_to_numpy(v.value)) for v in net.trainable_variables
    }
    assert lengths["norm/kernel"] == pytest.approx(2, rel=0.02)
    assert lengths["dense_norm/kernel"] == pytest.approx(6**0.5, rel=0.02)
    assert lengths["head/kernel"] == pytest.approx(np.linalg.norm(before["head/kernel"]), rel=0.2)


# --- as a Keras optimizer ------------------------------------------------------------------------


def test_a_skipped_update_of_float16_changes_nothing() -> None:
    """The gradient overflows; then the scale is halved, and the next update is made."""
    shapes: dict[str, Sequence[int]] = {"kernel": (3, 3, 16, 16), "gamma": (16,)}
    variables = variables_of(shapes)
    kernels = [variables[0].path]
    optimizer = keras.optimizers.LossScaleOptimizer(
        Muon(0.2, kernels=kernels), initial_scale=1024.0
    )
    optimizer.build(variables)
    before = values_of([*variables, *optimizer.inner_optimizer.momentums])
    apply(optimizer, variables, [np.full(v.shape, np.inf, np.float32) for v in variables])
    after = values_of([*variables, *optimizer.inner_optimizer.momentums])
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert int(optimizer.inner_optimizer.iterations) == 0
    apply(optimizer, variables, [512 * random(v.shape, 100) for v in variables])
    assert int(optimizer.inner_optimizer.iterations) == 1
    for value, expected in zip(values_of(variables), updated(learning_rate=0.2), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)


def test_config_and_errors() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.2, warmup_steps=3)
    for rate in (0.1, schedule):
        optimizer = Muon(rate, 0.8, 1e-3, kernels=["a/kernel"], kernel_scale=0.3)
        for again in (
            Muon.from_config(optimizer.get_config()),
            keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)),
        ):
            assert type(again) is Muon and again.get_config() == optimizer.get_config()
            assert again.kernels == ("a/kernel",) and again.kernel_scale == 0.3
            assert (again.momentum, again.coupled_weight_decay, again.nesterov) == (0.8, 1e-3, True)
    with pytest.raises(
        ValueError, match=r"kernels must be paths of trainable variables.*'a/kernel'"
    ):
        optimizer.build(variables_of(OTHERS))
