"""What a recipe is: the numbers of an optimization, as data that can be imported, compared and saved.

A recipe knows neither nets nor data. `schedules.py` makes its learning rate from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Schedule = Literal["step", "cosine"]
WarmupShape = Literal["constant", "linear"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a net is trained: the schedule, the momentum, the weight decay and the crop.

    `batch_size` is in images per update; all other counts are in updates, never in epochs.

    Raises:
        ValueError: if `kernel_rate` is given without Nesterov momentum.
    """

    # fmt: off
    name: str                    # as `recipe` takes it
    steps: int                   # updates of the whole run
    batch_size: int              # images per update
    learning_rate: float         # the highest rate of the schedule
    schedule: Schedule           # step: a tenth after 1/2 and 3/4 of the steps; cosine: down to zero
    warmup_steps: int            # first updates at lower rates
    warmup_shape: WarmupShape    # constant: at a tenth of the rate; linear: from zero to the rate
    warmup_min_depth: int        # nets with fewer layers start without a warm-up
    momentum: float              # v = momentum * v - rate * g
    nesterov: bool               # look ahead: w = w + momentum * v - rate * g, in place of w + v
    weight_decay: float          # of SGD, coupled: g = g + weight_decay * w, before the momentum
    kernel_rate: float | None = None  # Muon's highest rate, for kernels; None: SGD trains them too
    crop_padding: int = 4        # pixels on each side, before a crop of the image's size
    # fmt: on

    def __post_init__(self) -> None:
        if self.kernel_rate is not None and not self.nesterov:
            raise ValueError("kernel_rate needs nesterov=True: Muon always looks ahead")

    def resolve(self, depth: int, **overrides: Any) -> Recipe:
        """This recipe for one net: the given numbers replaced, the warm-up fitted to steps and depth.

        A linear warm-up is part of the schedule's shape and scales with `steps`. A constant one is
        there until the loss has left its plateau: it keeps its length, up to a quarter of `steps`.

        Args:
            depth: layers of the net.
            **overrides: fields of this class; None keeps the recipe's. `warmup_steps` is then taken
                as it is; `learning_rate` scales `kernel_rate` with it.
        """
        given = {key: value for key, value in overrides.items() if value is not None}
        steps = given.get("steps", self.steps)
        if depth < self.warmup_min_depth:
            warmup = 0
        elif self.warmup_shape == "linear":
            warmup = self.warmup_steps * steps // self.steps
        else:
            warmup = min(self.warmup_steps, steps // 4)
        fitted: dict[str, Any] = {"warmup_steps": warmup}
        if self.kernel_rate is not None and "learning_rate" in given:
            fitted["kernel_rate"] = self.kernel_rate * (given["learning_rate"] / self.learning_rate)
        return dataclasses.replace(self, **fitted | given)

    def settings(self) -> dict[str, Any]:
        """The fields that decide a run's numbers, once the recipe is resolved for its net."""
        fields = dataclasses.asdict(self)
        del fields["name"], fields["warmup_min_depth"]
        return fields

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Field -> (here, in `other`), for the fields of `settings` in which they differ."""
        theirs = other.settings()
        return {
            key: (value, theirs[key])
            for key, value in self.settings().items()
            if value != theirs[key]
        }
