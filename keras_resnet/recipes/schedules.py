"""The learning rate of a recipe, as a Keras schedule of `optimizer.iterations`."""

import dataclasses

import keras

from keras_resnet.errors import integer, number
from keras_resnet.recipes.paper import PAPER
from keras_resnet.recipes.recipe import Recipe


def schedule_of(recipe: Recipe) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a resolved recipe, a function of the updates made so far (from 0)."""
    if recipe.schedule == "step":
        return learning_rate_schedule(recipe.learning_rate, recipe.steps, recipe.warmup_steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        # Keras counts the decay from the end of the warm-up.
        decay_steps=recipe.steps - recipe.warmup_steps,
    )


def learning_rate_schedule(
    learning_rate: float = 0.1, steps: int = 64_000, warmup_steps: int = 0
) -> keras.optimizers.schedules.PiecewiseConstantDecay:
    """The paper's schedule (section 4.2): a tenth after half of the updates, a hundredth after 3/4.

    Args:
        learning_rate: rate of the first half, above 0 (the paper: 0.1).
        steps: updates of the whole run (the paper: 64,000, so the drops come after exactly 32,000
            and 48,000 updates).
        warmup_steps: updates at a tenth of `learning_rate` before it (the paper: 400 for 110 layers),
            less than half of `steps`.

    Returns:
        Schedule of `optimizer.iterations`, the number of updates made so far.

    Raises:
        ValueError: if the pieces do not fit into `steps`.
    """
    number("learning_rate", learning_rate)
    steps, warmup_steps = integer("steps", steps), integer("warmup_steps", warmup_steps)
    # The recipe checks them.
    dataclasses.replace(PAPER, learning_rate=learning_rate, steps=steps, warmup_steps=warmup_steps)
    boundaries = [steps // 2, steps * 3 // 4]
    rates = [learning_rate, learning_rate / 10, learning_rate / 100]
    if warmup_steps:
        boundaries, rates = [warmup_steps, *boundaries], [learning_rate / 10, *rates]
    # Keras keeps the old value while `step <= boundary`, and iterations count from 0: n updates at
    # the first rate are the iterations 0..n-1.
    return keras.optimizers.schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], rates)
