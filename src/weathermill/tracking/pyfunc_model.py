"""The MLflow model, as code: a forecast network that takes and gives physical units.

MLflow runs this file to load the model, so nothing is pickled; the weights come from the ``forecaster`` artefact.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np

from weathermill.models.forecaster import Forecaster
from weathermill.training.engine import choose_device


class ForecastModel(mlflow.pyfunc.PythonModel):
    """Autoregressive forecasts in physical units.

    The input is an array (n, channel, latitude, longitude) of states, channels and grid as the model's
    ``forecaster/model.json`` lists them; the parameter ``steps`` says how many steps to go. The output is an array
    (n, steps, prognostic channel, latitude, longitude), float32.
    """

    def load_context(self, context: Any) -> None:
        """Load the weights."""
        self.forecaster = Forecaster.load(context.artifacts["forecaster"], device=choose_device())

    # Without type hints: MLflow would take them for a signature of its own, which is given when the model is logged.
    def predict(self, context, model_input, params=None):
        """Forecast from every state of ``model_input``."""
        steps = int((params or {}).get("steps", 1))
        if isinstance(model_input, dict):
            (model_input,) = model_input.values()
        states = np.asarray(model_input, dtype=np.float32)
        return np.stack(list(self.forecaster.rollout_physical(states, steps)), axis=1)


mlflow.models.set_model(ForecastModel())
