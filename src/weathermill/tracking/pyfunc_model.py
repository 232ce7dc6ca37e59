"""The MLflow model, as code: a forecast network that takes and gives physical units.

MLflow runs this file to load the model, so nothing is pickled; the weights come from the ``forecaster`` artefact.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import torch

from weathermill.models.forecaster import Forecaster


class ForecastModel(mlflow.pyfunc.PythonModel):
    """Autoregressive forecasts in physical units.

    The input is an array (n, channel, latitude, longitude) of states, channels and grid as the model's
    ``forecaster/model.json`` lists them; the parameter ``steps`` says how many steps to go. The output is an array
    (n, steps, prognostic channel, latitude, longitude), float32.
    """

    def load_context(self, context: Any) -> None:
        """Load the weights."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.forecaster = Forecaster.load(context.artifacts["forecaster"], device=device)

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Forecast from every state of ``model_input``."""
        steps = int((params or {}).get("steps", 1))
        if isinstance(model_input, dict):
            (model_input,) = model_input.values()
        states = torch.as_tensor(np.asarray(model_input, dtype=np.float32))
        with torch.no_grad():
            return self.forecaster.rollout_physical(states, steps).cpu().numpy()


mlflow.models.set_model(ForecastModel())
