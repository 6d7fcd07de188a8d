"""The net of a run: a new one, one that starts from trained weights, or the user's own."""

import dataclasses
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_resnet import console
from keras_resnet.data.dataset import Dataset
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.open import load_keras, model_file, run_config
from keras_resnet.inference.pretrained import load_trained
from keras_resnet.nets.describe import describe
from keras_resnet.nets.family import MODELS
from keras_resnet.nets.resnet import build
from keras_resnet.nets.stock import stock
from keras_resnet.runs.config import OF_WEIGHTS, TrainConfig
from keras_resnet.training import devices

_NAME = re.compile(r"[A-Za-z0-9.][\w.\\/>-]*", re.ASCII)  # what TensorFlow takes


def settings_of_weights(config: TrainConfig) -> TrainConfig:
    """The same settings, with the model, depth and shortcut of the net of `weights`.

    Raises UserError where one of them is given, and is not that of the net or does not go with it.
    """
    if config.weights is None:
        return config
    facts = describe(load_keras(zoo.resolve(config.weights)))
    net = {key: facts[key] or getattr(config, key) for key in OF_WEIGHTS}
    for key, value in net.items():
        given = getattr(config, key)
        if given not in (value, getattr(TrainConfig, key)):
            raise UserError(f"`{key}` must be {value}, as in `weights`. Received: {given}")
    return dataclasses.replace(config, **net)


def build_net(config: TrainConfig, data: Dataset, dtype: str) -> keras.Model:
    """The net that is trained, from pixels to probabilities or logits. Raises UserError."""
    if config.model not in MODELS:
        return _own_net(config, data, dtype)
    shape, classes = data.train_images.shape[1:], len(data.class_names)
    options: dict[str, Any] = {"num_classes": classes, "input_shape": shape}
    options |= {"seed": config.seed, "dtype": dtype}
    if config.weights is None:
        options |= {"shortcut": config.shortcut, "mean": data.mean, "std": data.std}
        return build(config.model, config.depth, **options)
    new_head = False  # where its classes are not those of the data
    try:
        data.check_classes(Classifier.load(config.weights).class_names)
    except UserError:
        new_head = True
    _note_seen_images(config, data)
    net = load_trained(config.weights, new_head=new_head, **options)
    if not new_head:
        console.print_line(
            f"took all of {net.name} from {config.weights}: its classes are the same"
        )
    if config.freeze:
        for layer in net.layers:
            layer.trainable = layer.name == "head_dense"
        console.print_line("frozen: all but its dense layer")
    return net


def _note_seen_images(config: TrainConfig, data: Dataset) -> None:
    """Warn where the net of `weights` was trained on images that this run validates with."""
    began: Any = run_config(model_file(zoo.resolve(config.weights)).parent) or {}
    settings = began.get("settings", {})
    same = began.get("content_hash", data.content_hash) == data.content_hash
    if settings.get("dataset") != config.dataset or not same:
        return
    before = data.split(settings.get("val_size"), settings.get("seed", 0))[0]
    now = data.split(config.val_size, config.seed)[1]
    if seen := len(np.intersect1d(before, now)):
        console.print_note(
            f"{seen:,} of the {len(now):,} validation images were among those that {config.weights} was "
            "trained on: the validation error will be too low; only the test error counts"
        )


def function_of(model: str) -> Callable[..., Any]:
    """The user's function that `module:function` names; its module may be in the working directory."""
    module, _, name = model.partition(":")
    expected = f"`model` must be resnet, plain, or module:function, without .py. Received: {model}"
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise UserError(f"{expected}; {error} (also looked in {os.getcwd()})") from None
    if not callable(function):
        raise UserError(f"{expected}; {module} has no function {name}")
    try:
        inspect.signature(function).bind("input_shape", "num_classes", "seed")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{model} must be a function of (input_shape, num_classes, seed): {error}"
        ) from None
    return function


def _own_net(config: TrainConfig, data: Dataset, dtype: str) -> keras.Model:
    """The net that the user's function `config.model` makes."""
    function = function_of(config.model)
    shape, classes = data.train_images.shape[1:], len(data.class_names)
    before = keras.config.dtype_policy()
    devices.clear_session()  # unnamed layers are numbered from 1 again, so that a resume finds them
    keras.utils.set_random_seed(config.seed % 2**32)  # for layers without a seed
    keras.config.set_dtype_policy(dtype)
    try:
        net = function(shape, classes, config.seed)
    finally:
        keras.config.set_dtype_policy(before)
    shapes = tuple(getattr(net, f"{end}put_shape", None) for end in ("in", "out"))
    if shapes != ((None, *shape), (None, classes)):
        raise UserError(
            f"{config.model} must return a Keras model from {(None, *shape)} to probabilities or logits "
            f"{(None, classes)}. Received: {type(net).__name__} from {shapes[0]} to {shapes[1]}"
        )
    # A Sequential net becomes Functional.
    net = keras.Model(net.inputs[0], net.outputs[0], name=net.name)
    last = net.output._keras_history.operation
    sigmoid = getattr(last, "activation", None) is keras.activations.sigmoid
    outputs, logits = (
        ops.convert_to_numpy(ops.cast(x(data.train_images[:8]), "float32"))
        for x in (net, logits_of(net))
    )
    sums_to_1 = outputs.min() >= 0 and (abs(outputs.sum(axis=1) - 1) < 0.01).all()
    normalized = sigmoid or sums_to_1 or type(last).__name__ in ("Sigmoid", "Softmax")
    if normalized and (outputs == logits).all():
        raise UserError(
            f"{config.model} must return a net that ends in a Softmax layer, in a layer with the activation "
            "softmax, or in logits. Received: probabilities that come from something else"
        )
    strange = [
        x for x in (net.name, *(layer.name for layer in net.layers)) if not _NAME.fullmatch(x)
    ]
    if strange or not net.trainable_variables:
        received = f"the name {strange[0]!r}" if strange else "no trainable variables"
        raise UserError(
            f"{config.model} must return a net with trainable variables, named by a-z, 0-9, _ and - (its "
            f"layers too), so that it can be exported. Received: {received}"
        )
    try:  # as it is saved after the training, and opened
        saved = keras.saving.serialize_keras_object(stock(net))
        keras.saving.deserialize_keras_object(saved, safe_mode=True)
    except (TypeError, ValueError) as error:
        reason = str(error).partition(". ")[0].splitlines()[0].replace("`", "")
        raise UserError(
            f"{config.model} must return a net that can be saved in float32 and opened again: {reason}"
        ) from None
    return net


def logits_of(net: keras.Model) -> keras.Model:
    """The same net up to its logits: the loss is computed from these, which cannot saturate."""
    last, node, _ = net.output._keras_history
    logits = net.output
    if isinstance(last, layers.Softmax) and last.axis in (-1, 1):
        logits = last._inbound_nodes[node].input_tensors[0]
    elif getattr(last, "activation", None) is keras.activations.softmax:
        # The logarithms of probabilities are logits too. 1e-7 is Keras's epsilon.
        logits = ops.log(ops.maximum(ops.cast(logits, "float32"), 1e-7))
    return keras.Model(net.input, logits)
