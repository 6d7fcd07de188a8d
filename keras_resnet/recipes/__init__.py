"""Recipes: how a net is trained, as data. One module per recipe.

The learning rate is made from it in `schedules.py`, the optimizers are in `optimizer.py` and `muon.py`; these
import Keras.
"""

from typing import Any

from keras_resnet.recipes.fast import FAST
from keras_resnet.recipes.fast_0_2 import FAST_0_2
from keras_resnet.recipes.paper import PAPER
from keras_resnet.recipes.recipe import Recipe

RECIPES = {recipe.name: recipe for recipe in (PAPER, FAST, FAST_0_2)}

__all__ = [
    "FAST",
    "FAST_0_2",
    "PAPER",
    "RECIPES",
    "Recipe",
    "describe_changes",
    "describe_difference",
]


def describe_changes(recipe: Recipe, depth: int) -> str:
    """A resolved recipe and what was changed in it: `"fast, but steps 8,000 (16,000)"`."""
    usual = RECIPES[recipe.name].resolve(depth)
    changed = {"steps": (recipe.steps, usual.steps)} if recipe.steps != usual.steps else {}
    # The warm-up that these steps bring with them is no change.
    changed |= recipe.differences(RECIPES[recipe.name].resolve(depth, steps=recipe.steps))
    return recipe.name + (f", but {_pairs(changed)}" if changed else "")


def describe_difference(recipe: Recipe, other: Recipe) -> str:
    """What a recipe does otherwise than another: `"steps 16,000 (64,000), nesterov True (False)"`."""
    return _pairs(recipe.differences(other))


def _pairs(differences: dict[str, tuple[Any, Any]]) -> str:
    def text(value: Any) -> str:
        return (
            f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        )

    return ", ".join(
        f"{name.replace('_', ' ')} {text(here)} ({text(there)})"
        for name, (here, there) in differences.items()
    )
