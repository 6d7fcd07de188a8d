"""What a recipe is: the numbers of an optimization, as data that can be imported, compared and saved."""

import dataclasses
from typing import Any, Self

from keras_resnet.errors import UserError

MAX_STEPS = 10**9  # far beyond use

SCHEDULES = ("step", "cosine")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a net is trained: the schedule, the momentum, the weight decay and the crop.

    `batch_size` is in images per update; all other counts are in updates, never in epochs.

    Raises:
        ValueError: for a number out of range, and for `kernel_rate` without Nesterov momentum.
    """

    # fmt: off
    name: str                    # a value of the setting `recipe`
    steps: int                   # updates of the whole run
    batch_size: int              # images per update
    learning_rate: float         # the highest rate of the schedule
    schedule: str                # step: a tenth after 1/2 and 3/4 of the steps; cosine: down to zero
    warmup_steps: int            # first updates; step: at a tenth of the rate; cosine: rising from zero
    warmup_min_depth: int        # nets with fewer layers start without a warm-up
    momentum: float              # v = momentum * v - rate * g
    nesterov: bool               # look ahead: w = w + momentum * v - rate * g, in place of w + v
    weight_decay: float          # of SGD, coupled: g = g + weight_decay * w, before the momentum
    kernel_rate: float | None = None  # Muon's highest rate, for kernels; None: SGD trains them too
    crop_padding: int = 4        # pixels on each side, before a crop of the image's size
    # fmt: on

    def __post_init__(self) -> None:
        without = "None without Nesterov momentum, which Muon needs"
        rates = "above 0 and at most 1e30"  # beyond, float32 would soon be infinite
        below = f"0 or more and below half of steps={self.steps}"
        kernel = self.kernel_rate
        for name, expected, good in (
            ("name", "printable text, not empty", str(self.name).isprintable() and self.name != ""),
            ("steps", f"4 to {MAX_STEPS}", 4 <= self.steps <= MAX_STEPS),
            ("batch_size", "1 or more", self.batch_size >= 1),
            ("learning_rate", rates, 0 < self.learning_rate <= 1e30),
            ("weight_decay", "0 or more and at most 1e30", 0 <= self.weight_decay <= 1e30),
            ("momentum", "0 or more and below 1", 0 <= self.momentum < 1),
            ("crop_padding", "0 to 1000", 0 <= self.crop_padding <= 1_000),
            ("warmup_steps", below, 0 <= self.warmup_steps < self.steps // 2),
            ("schedule", " or ".join(SCHEDULES), self.schedule in SCHEDULES),
            ("kernel_rate", f"None, or {rates}", kernel is None or 0 < kernel <= 1e30),
            ("kernel_rate", without, kernel is None or self.nesterov),
        ):
            if not good:
                raise UserError(f"`{name}` must be {expected}. Received: {getattr(self, name)}")

    def resolve(self, depth: int, **overrides: Any) -> Self:
        """This recipe for one net: the given numbers replaced, the warm-up fitted to steps and depth.

        The warm-up of a cosine is part of its shape and scales with `steps`. That of the step schedule is
        there until the loss has left its plateau: it keeps its length, up to a quarter of `steps`.
        Of the `overrides`, None keeps the recipe's number; `learning_rate` scales `kernel_rate` too.
        """
        given = {key: value for key, value in overrides.items() if value is not None}
        steps = given.get("steps", self.steps)
        if depth < self.warmup_min_depth:
            warmup = 0
        elif self.schedule == "cosine":
            warmup = self.warmup_steps * steps // self.steps
        else:
            warmup = min(self.warmup_steps, steps // 4)
        fitted: dict[str, Any] = {"warmup_steps": warmup}
        if self.kernel_rate is not None and "learning_rate" in given:
            fitted["kernel_rate"] = self.kernel_rate * (given["learning_rate"] / self.learning_rate)
        return dataclasses.replace(self, **fitted | given)

    def usual_settings(self, depth: int, steps: int) -> dict[str, Any]:
        """The settings of a net that changes no number but `steps`, to which the warm-up is fitted."""
        return self.resolve(depth, steps=steps).settings() | {"steps": self.steps}

    def settings(self) -> dict[str, Any]:
        """The fields that decide a run's numbers, once the recipe is resolved for its net."""
        fields = dataclasses.asdict(self)
        del fields["name"], fields["warmup_min_depth"]
        return fields
