"""The model that `fit` trains, and what it is fed."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_resnet.data import augmentation, stream
from keras_resnet.data.augmentation import RandomPadCrop
from keras_resnet.data.dataset import Dataset
from keras_resnet.nets.describe import normalization_of
from keras_resnet.recipes import Recipe
from keras_resnet.recipes.muon import Muon
from keras_resnet.recipes.optimizer import SGD
from keras_resnet.recipes.schedules import schedule_of
from keras_resnet.runs.run import Run
from keras_resnet.training import backends
from keras_resnet.training.backends import Chunk
from keras_resnet.training.net import logits_of

# Batches that the stream makes at a time: NumPy's calls cost less for many.
CHUNK = 32


class _ResidentImages(layers.Layer):
    """Indices `(N,)` -> images `(N, H, W, C)` uint8, from a data set that lives on the device."""

    def __init__(self, images: np.ndarray, **kwargs: Any):
        super().__init__(**kwargs)
        # A variable: JAX would bake a constant into the program, and send it there with each compilation.
        self._images = self.add_weight(images.shape, "zeros", "uint8", trainable=False)
        self._images.assign(images)

    def call(self, indices: Any) -> Any:
        return ops.take(self._images, indices, axis=0)


def training_model(run: Run, data: Dataset, net: keras.Model, start: int = 0) -> keras.Model:
    """(indices, crops) -> images -> augmentation -> logits, compiled with the run's recipe.

    `start` is the number of updates that were made already, in an earlier session.
    """
    index = keras.Input((), dtype="int32", name="index")
    draw = keras.Input((3,), dtype="int32", name="draw")
    images = _ResidentImages(data.train_images, name="images")(index)
    recipe = run.recipe
    augment, padding = run.config.augment, recipe.crop_padding
    normalization = normalization_of(net) if run.config.weights else None
    crop = RandomPadCrop(
        0 if augment == "none" else padding,
        fill=data.mean if normalization is None else tuple(normalization[0].tolist()),
        flip=augment == "crop+flip",
        dtype="float32",
    )
    model = keras.Model([index, draw], logits_of(net)(crop(images, draw=draw)))
    optimizer = optimizer_of(recipe, net)
    if any(layer.compute_dtype == "float16" for layer in net.layers):
        # Gradients below 6e-8 vanish in float16. A step whose scaled gradients overflow is skipped: it
        # counts as an update of the run, but does not advance `optimizer.iterations`.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
    # One call of a GPU makes up to 50 updates: a number that divides all intervals.
    config = run.config
    interval = math.gcd(recipe.steps, config.eval_every, config.checkpoint_every, start)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        **backends.current().compile_options(max(k for k in range(1, 51) if interval % k == 0)),
    )
    # Keras would build slots and metrics at the first update; a resume fills them before it.
    optimizer.build(model.trainable_variables)
    model.compute_metrics(None, ops.zeros((1,)), ops.zeros((1, len(data.class_names))))
    model.reset_metrics()
    return model


def optimizer_of(recipe: Recipe, net: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer of a resolved recipe, for the variables of a net."""
    rate, momentum, decay = schedule_of(recipe), recipe.momentum, recipe.weight_decay
    if recipe.kernel_rate is None:
        return SGD(rate, momentum, decay, nesterov=recipe.nesterov)
    scale = recipe.kernel_rate / recipe.learning_rate
    return Muon(rate, momentum, decay, normalized_kernels(net), scale)


def normalized_kernels(net: keras.Model) -> list[str]:
    """Paths of the kernels whose output goes into a batch normalization and nowhere else."""
    paths = []
    for layer in net.layers:
        if isinstance(layer, layers.Conv2D | layers.Dense) and layer.trainable:
            following = [node.operation for node in layer._outbound_nodes]
            if following and all(isinstance(o, layers.BatchNormalization) for o in following):
                paths.append(layer.kernel.path)
    return paths


def chunks(run: Run, labels: np.ndarray, train: np.ndarray, start: int) -> Iterator[Chunk]:
    """The batches from update `start` on; `train` holds the indices of the training images."""
    seed, batch_size, padding = run.config.seed, run.recipe.batch_size, run.recipe.crop_padding
    for first in itertools.count(start, CHUNK):
        steps = range(first, first + CHUNK)
        index = train[[stream.batch_indices(seed, k, len(train), batch_size) for k in steps]]
        draw = augmentation.draw_crops(seed, first, CHUNK, batch_size, padding)
        yield (index.astype(np.int32), draw), labels[index]
