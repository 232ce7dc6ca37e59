"""The MLflow model, as code: a forecast network that takes and gives physical units.

MLflow runs this file to load the model, so nothing is pickled; the weights come from the ``forecaster`` artefact.
"""

from __future__ import annotations

from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from weathermill.errors import WeathermillError
from weathermill.forecasting.requests import answer
from weathermill.models.forecaster import Forecaster
from weathermill.training.engine import choose_device


class ForecastModel(mlflow.pyfunc.PythonModel):
    """Autoregressive forecasts in physical units.

    The input is an array (n, channel, latitude, longitude) of states. The parameters ``channel``, ``units``,
    ``latitude`` and ``longitude`` are its coordinates; without them it is in the order and on the grid of the network,
    which the model's metadata list. ``steps`` or ``lead_time_hours`` say how far to go. The output is a mapping:
    ``forecast`` (n, lead, channel, latitude, longitude), float32, with ``lead_time_hours``, ``channel``, ``units``,
    ``latitude`` and ``longitude``.
    """

    # The signature is given when the model is logged; MLflow would ask for type hints to infer one from.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the weights."""
        self.forecaster = Forecaster.load(context.artifacts["forecaster"], device=choose_device())

    # Without type hints: MLflow would take them for a signature of its own, which is given when the model is logged.
    def predict(self, context, model_input, params=None):
        """Forecast from every state of ``model_input``.

        Raises
        ------
        MlflowException
            With what does not fit; a server answers it with status 400.
        """
        if isinstance(model_input, dict):
            (model_input,) = model_input.values()
        try:
            return answer(self.forecaster, model_input, **(params or {}))
        except WeathermillError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


mlflow.models.set_model(ForecastModel())
