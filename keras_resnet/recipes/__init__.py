"""Recipes: how a net is trained, as data. Add one by its module and a place in `RECIPES`.

The learning rate is made from it in `schedules.py`, the optimizers are in `optimizer.py` and `muon.py`; these
import Keras.
"""

from typing import Any

from keras_resnet.recipes.fast import FAST, FAST_0_2
from keras_resnet.recipes.paper import PAPER
from keras_resnet.recipes.recipe import Recipe

RECIPES = {recipe.name: recipe for recipe in (PAPER, FAST, FAST_0_2)}

__all__ = ["FAST", "FAST_0_2", "PAPER", "RECIPES", "Recipe", "describe_changes"]


def describe_changes(recipe: Recipe, depth: int) -> str:
    """A resolved recipe and what was changed in it: `"fast, but steps 8,000 (10,000)"`."""
    if recipe.name not in RECIPES:
        return recipe.name
    usual = RECIPES[recipe.name].resolve(depth)
    changed = {"steps": (recipe.steps, usual.steps)} if recipe.steps != usual.steps else {}
    # The warm-up that these steps bring with them is no change.
    changed |= recipe.differences(RECIPES[recipe.name].resolve(depth, steps=recipe.steps))
    return recipe.name + (f", but {describe_difference(changed)}" if changed else "")


def describe_difference(differences: dict[str, tuple[Any, Any]]) -> str:
    """`Recipe.differences` in words: `"steps 16,000 (64,000), nesterov True (False)"`."""

    def text(value: Any) -> str:
        return f"{value:,}" if type(value) is int else str(value)

    return ", ".join(
        f"{name.replace('_', ' ')} {text(here)} ({text(there)})"
        for name, (here, there) in differences.items()
    )
