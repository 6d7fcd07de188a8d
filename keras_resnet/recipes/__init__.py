"""Recipes: how a net is trained, as data. To add one, write its module and list it in `RECIPES`.

`schedules.py` makes the learning rate from a recipe; the optimizers are in `optimizer.py` and `muon.py`.
These three import Keras.
"""

from typing import Any

from keras_resnet.recipes.fast import FAST, FAST_0_2
from keras_resnet.recipes.paper import PAPER
from keras_resnet.recipes.recipe import Recipe

RECIPES = {recipe.name: recipe for recipe in (PAPER, FAST, FAST_0_2)}


def describe_changes(recipe: Recipe, depth: int) -> str:
    """A resolved recipe and what was changed in it, or in `paper`: `"fast, but steps 8,000 (10,000)"`."""
    usual = RECIPES.get(recipe.name, PAPER).usual_settings(depth, recipe.steps)
    changes = describe_difference(recipe.settings(), usual)
    name = recipe.name if recipe.name in RECIPES else f"{recipe.name} (paper's, changed)"
    return name + (f", but {changes}" if changes else "")


def describe_difference(here: dict[str, Any], there: dict[str, Any]) -> str:
    """In which settings two recipes differ: `"steps 16,000 (64,000), nesterov True (False)"`."""

    def text(value: Any) -> str:
        return f"{value:,}" if type(value) is int else str(value)

    return ", ".join(
        f"{name.replace('_', ' ')} {text(value)} ({text(there[name])})"
        for name, value in here.items()
        if value != there[name]
    )
