"""The net that is saved: a trained net rebuilt in float32 from Keras's own layers alone.

`keras.models.load_model` opens its file on every backend, where this package is not installed. It has
the same layers under the same names, the same weights and the same numbers, but for

- BatchNormalization, which is Keras's (ours differs in training alone);
- the zeropad shortcut, which is a 1x1 convolution whose fixed kernel of zeros and ones copies each
  channel and leaves the new ones empty (with zeropad-maxpool, a MaxPooling2D comes before it);
- the pooling of the head, which keeps its axes until a Flatten drops them: ONNX then needs no Squeeze,
  which some programs lack.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

from keras_resnet.nets.layers import BatchNormalization, ZeroPadShortcut


def stock(net: keras.Model) -> keras.Model:
    """The same net, ours or any Keras model, in float32, made of Keras's own layers alone.

    It has copies of the weights; it is `net` itself where all layers are Keras's and float32. Our layers in
    models inside another are left as they are.
    """
    is_ours = any(isinstance(x, BatchNormalization | ZeroPadShortcut) for x in net.layers)
    if not is_ours and all(x.dtype_policy.name == "float32" for x in net._flatten_layers()):
        return net
    # `clone_model` takes `call_function` for Functional nets alone.
    if isinstance(net, keras.Sequential):
        net = keras.Model(net.inputs[0], net.outputs[0], name=net.name)
    common: Any = {"data_format": "channels_last", "dtype": "float32"}
    ours = [layer for layer in net.layers if isinstance(layer, ZeroPadShortcut)]
    flat: set[str] = set()  # names of poolings that a Flatten follows
    pools = {layer.name: layer.strides for layer in ours if layer.pooling}

    def with_flatten(layer: keras.Operation) -> bool:
        pool = isinstance(layer, layers.GlobalAveragePooling2D) and not layer.keepdims
        return pool and len(layer._inbound_nodes) == 1

    def clone(layer: keras.Operation) -> keras.Operation:  # a layer, or a function like `ops.add`
        config = _in_float32(layer.get_config())
        if isinstance(layer, ZeroPadShortcut):
            fixed: Any = {"use_bias": False, "kernel_initializer": "zeros", "trainable": False}
            strides = 1 if layer.pooling else layer.strides
            return layers.Conv2D(layer.filters, 1, strides, name=layer.name, **fixed, **common)
        if isinstance(layer, BatchNormalization):
            return layers.BatchNormalization.from_config(config)
        if with_flatten(layer):
            config["keepdims"] = True
            flat.add(layer.name)
        return type(layer).from_config(config)

    def call(layer: layers.Layer, *arguments: Any, **options: Any) -> Any:
        if layer.name in pools:
            pool = layers.MaxPooling2D(pools[layer.name], name=f"{layer.name}_pool", **common)
            arguments = (pool(*arguments),)
        outputs = layer(*arguments, **options)
        if layer.name in flat:
            outputs = layers.Flatten(name=f"{layer.name}_flatten", **common)(outputs)
        return outputs

    rebuilt = keras.models.clone_model(net, clone_function=clone, call_function=call)
    copy_weights(net, rebuilt)
    for layer in ours:
        kernel = rebuilt.get_layer(layer.name).kernel
        kernel.assign(np.eye(*kernel.shape[2:])[None, None])
    return rebuilt


def _in_float32(config: Any) -> Any:
    """A config with all its dtype policies, also of layers inside others, replaced by float32."""
    if isinstance(config, list | tuple):
        return [_in_float32(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and _is_policy(value) else _in_float32(value)
        for key, value in config.items()
    }


def _is_policy(value: Any) -> bool:
    """Whether this is a layer's dtype policy, or a function's cast to 16 bits."""
    return isinstance(value, dict) or str(value).endswith("float16")


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give each layer of `target` the weights of the layer of the same name in `source`.

    One of them may be the stock form of the other: the fixed kernel of a shortcut is left as it is.
    """
    for layer in target.layers:
        if layer.weights and (weights := source.get_layer(layer.name).get_weights()):
            layer.set_weights(weights)
