"""Muon against a NumPy build in float64, and what it may and may not change. Runs on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_resnet
from keras_resnet.recipes import FAST
from keras_resnet.recipes.muon import Muon, orthogonal
from keras_resnet.training.model import normalized_kernels, optimizer_of

KERNELS = {"stem": (3, 3, 3, 16), "square": (3, 3, 32, 32), "wider": (3, 3, 16, 32)}
WIDE = (1, 1, 16, 32)
OTHERS = {"gamma": (16,), "head": (64, 10)}


def newton_schulz(matrix):
    """Five iterations x = a x + b (x xT) x + c (x xT)^2 x, from the fourth root of the sum of s^4 on."""
    x = matrix / np.sqrt(np.linalg.norm(matrix.T @ matrix))
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    return x


class Reference:
    """Issue 26's formulas for one variable, in float64."""

    def __init__(self, value, is_kernel):
        self.value, self.is_kernel = value.astype(np.float64), is_kernel
        self.slot = np.zeros_like(self.value)

    def update(self, g, rate, scale=0.1, decay=0.0005):
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


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def with_spectrum(rows, columns, values):
    """A random matrix that has these singular values."""
    left, right = (np.linalg.qr(random((n, len(values)), seed=n))[0] for n in (rows, columns))
    return ((left * values) @ right.T).astype(np.float32)


def spectra(count, span):
    """Singular values from 1 down to 1 / span: geometric, linear, all but one large, all but one small."""
    return [
        np.geomspace(1, 1 / span, count),
        np.linspace(1, 1 / span, count),
        np.r_[np.ones(count - 1), 1 / span],
        np.r_[1, np.full(count - 1, 1 / span)],
    ]


def orthogonal_of(gradient):
    return ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(gradient)))


def singular_values(kernel):
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]).astype(np.float64))[1]


def variables_of(shapes):
    return [
        keras.Variable(random(shape, seed=k), name=name)
        for k, (name, shape) in enumerate(shapes.items())
    ]


def values_of(variables):
    return [ops.convert_to_numpy(variable.value) for variable in variables]


def apply(optimizer, variables, gradients):
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


def built(variables, *arguments, **options):
    """Muon for a list of variables, those of four axes as kernels."""
    kernels = [variable.path for variable in variables if len(variable.shape) == 4]
    optimizer = Muon(*arguments, kernels=kernels, **options)  # type: ignore[arg-type]
    optimizer.build(variables)
    return optimizer


@pytest.mark.parametrize("scale", [1e-4, 1e6])
@pytest.mark.parametrize("size", [(144, 16), (16, 32), (32, 64)], ids=str)
def test_any_spectrum_that_spans_a_factor_of_100_comes_near_1(size, scale):
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
def test_gradients_of_zero_and_of_rank_one(shape):
    assert not orthogonal_of(np.zeros(shape, np.float32)).any()
    gradient = np.outer(random((np.prod(shape[:-1]),)), random(shape[-1:], seed=1))
    values = singular_values(orthogonal_of(gradient.reshape(shape).astype(np.float32)))
    assert 0.6 < values[0] < 1.25 and values[1] < 1e-2


def test_ten_updates_are_those_of_the_numpy_build():
    shapes = {**KERNELS, "wide": WIDE, "poor": (3, 3, 3, 16), **OTHERS}
    variables = variables_of(shapes)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.2, warmup_steps=3)
    optimizer = built(variables, schedule, 0.9, 5e-4, kernel_scale=0.1)
    references = [Reference(v, v.ndim == 4) for v in values_of(variables)]
    for k in range(10):
        gradients = [random(shape, seed=50 * k + n) for n, shape in enumerate(shapes.values())]
        poor = with_spectrum(27, 16, spectra(16, 100)[k % 4])
        gradients[list(shapes).index("poor")] = poor.reshape(shapes["poor"])
        rate = float(schedule(k))
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients])
        for reference, gradient in zip(references, gradients, strict=True):
            reference.update(gradient, rate)
    assert int(optimizer.iterations) == 10
    for name, value, reference in zip(shapes, values_of(variables), references, strict=True):
        error = np.abs(value - reference.value).max() / max(1, np.abs(reference.value).max())
        assert error < (1e-4 if name in ("wide", "poor") else 1e-6), name


@pytest.mark.parametrize("shortcut", ["zeropad", "projection"])
def test_of_our_nets_every_convolution_is_trained_by_muon(shortcut):
    net = keras_resnet.resnet(8, shortcut=shortcut)
    optimizer = optimizer_of(FAST.resolve(8, learning_rate=0.05), net)
    assert isinstance(optimizer, Muon) and optimizer.kernel_scale == pytest.approx(0.1)
    kernels = {v.path for v in net.trainable_variables if v.path.endswith("/kernel")}
    assert set(optimizer.kernels) == kernels - {"head_dense/kernel"}


def test_a_kernel_without_batch_normalisation_behind_it_stays_with_sgd():
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


def test_a_skipped_update_of_float16_changes_nothing():
    """The gradient overflows; then the scale is halved, and the next update is made."""
    shapes = {"kernel": (3, 3, 16, 16), "gamma": (16,)}
    variables = variables_of(shapes)
    muon = Muon(0.2, kernels=[variables[0].path])
    optimizer = keras.optimizers.LossScaleOptimizer(muon, initial_scale=1024.0)
    optimizer.build(variables)
    before = values_of([*variables, *optimizer.inner_optimizer.momentums])
    apply(optimizer, variables, [np.full(v.shape, np.inf, np.float32) for v in variables])
    after = values_of([*variables, *optimizer.inner_optimizer.momentums])
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert int(optimizer.inner_optimizer.iterations) == 0
    apply(optimizer, variables, [512 * random(v.shape, 100) for v in variables])
    assert int(optimizer.inner_optimizer.iterations) == 1
    alone = variables_of(shapes)
    built(alone, 0.2).apply([ops.convert_to_tensor(random(v.shape, 100)) for v in alone])
    for value, expected in zip(values_of(variables), values_of(alone), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)


def test_config_and_errors():
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.2, warmup_steps=3)
    optimizer = Muon(schedule, 0.8, 1e-3, kernels=["a/kernel"], kernel_scale=0.3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Muon and again.get_config() == optimizer.get_config()
    assert again.kernels == ("a/kernel",) and again.kernel_scale == 0.3
    assert (again.momentum, again.coupled_weight_decay, again.nesterov) == (0.8, 1e-3, True)
    with pytest.raises(ValueError, match="nesterov must be True"):
        Muon(nesterov=False)
    with pytest.raises(ValueError, match=r"kernels must be paths of .*'a/kernel'"):
        optimizer.build(variables_of(OTHERS))
