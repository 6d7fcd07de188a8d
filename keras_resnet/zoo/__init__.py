"""Trained nets by name: `keras_resnet.zoo.list()`, `keras_resnet.resnet(depth=20, weights="cifar10")`."""

from keras_resnet.zoo.registry import DEFAULT, Candidate, Entry
from keras_resnet.zoo.registry import entries as list

__all__ = ["DEFAULT", "Candidate", "Entry", "list"]
