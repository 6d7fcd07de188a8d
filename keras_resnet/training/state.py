"""What a checkpoint saves and a resume restores: every variable of the training, by name."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_resnet.errors import UserError


class TrainingState:
    """The variables of a net, and of the optimizer and the metrics of the model that trains it.

    Nothing random is among them: order, crops and flips are functions of (seed, step).

    Args:
        net: what is trained.
        model: the compiled model around it, with its optimizer built.
    """

    def __init__(self, net: keras.Model, model: keras.Model):
        self.net, self.model = net, model

    def variables(self) -> dict[str, keras.Variable]:
        """Every variable by its name in a checkpoint."""
        named: dict[str, keras.Variable] = {f"net/{v.path}": v for v in self.net.variables}
        # By path, so that two slots of one shape cannot change places unnoticed.
        named |= {f"optimizer/{v.path}": v for v in self.model.optimizer.variables}
        metrics = [v for metric in self.model.metrics for v in metric.variables]
        return named | {f"metric/{k}": v for k, v in enumerate(metrics)}

    def capture(self) -> dict[str, np.ndarray]:
        """The variables' values now."""
        return {
            name: keras.ops.convert_to_numpy(variable.value)
            for name, variable in self.variables().items()
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give the variables a checkpoint's values.

        Raises:
            UserError: where the checkpoint has other variables, or of other shapes.
        """
        variables = self.variables()
        arrays = self._by_path(arrays)
        different = sorted(variables.keys() ^ arrays.keys()) or [
            name for name, v in variables.items() if tuple(v.shape) != arrays[name].shape
        ]
        if different:
            raise UserError(
                f"the newest checkpoint does not fit this version of the program ({len(different)} "
                f"variables differ, e.g. {different[0]}); use `restart`"
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def _by_path(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Read what version 0.1.0 kept: the optimizer's variables by position, and a generator's state."""
        renamed = {name: array for name, array in arrays.items() if not name.startswith("random/")}
        by_position = {f"optimizer/{k}": v for k, v in enumerate(self.model.optimizer.variables)}
        if by_position.keys() <= renamed.keys():
            for old, variable in by_position.items():
                renamed[f"optimizer/{variable.path}"] = renamed.pop(old)
        return renamed
