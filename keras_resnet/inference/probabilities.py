"""What a net returns, checked: probabilities, or logits that a softmax makes probabilities."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from keras_resnet import console
from keras_resnet.errors import UserError


def to_probabilities(
    outputs: Any, count: int, source: str, output_name: str = "probabilities"
) -> np.ndarray:
    """What a net returned for `count` images, checked, as probabilities, float32 `(count, classes)`.

    Numbers that are no probabilities are taken for logits: a softmax is applied, and a note says so once.

    Args:
        outputs: what the net returned.
        count: of images.
        source: names the net in messages.
        output_name: of the net. One that is named `probabilities` must hold some.

    Raises:
        UserError: for another shape, values that are not finite, or no probabilities under that name.
    """
    values = np.asarray(outputs, np.float32)
    if values.ndim != 2 or len(values) != count or values.shape[1] < 2:
        raise UserError(
            f"{source} must return probabilities or logits (N, classes). Received: shape {values.shape} "
            f"for {count} images"
        )
    if not np.isfinite(values).all():
        raise UserError(
            f"{source} returns numbers that are not finite: it is damaged, or its training diverged"
        )
    # int8 files round each probability to a 256th.
    if not count or (values.min() >= 0 and np.abs(values.sum(axis=1) - 1).max() < 0.25):
        return values
    if output_name == "probabilities":
        raise UserError(
            f"{source} must return probabilities, as its output is named. Received: numbers from "
            f"{values.min():.3g} to {values.max():.3g}, sums from {values.sum(axis=1).min():.3g}"
        )
    _note_softmax(source)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@functools.cache  # once for each net
def _note_softmax(source: str) -> None:
    console.print_error(f"note: {source} returns logits; a softmax makes them probabilities")
