"""The MLflow model, as code: a forecast network that takes and gives physical units.

MLflow runs this file to load the model, so nothing is pickled; the weights come from the ``forecaster`` artefact.
"""

from __future__ import annotations

import logging
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from weathermill.errors import WeathermillError
from weathermill.forecasting.requests import answer
from weathermill.models.forecaster import Forecaster
from weathermill.training.engine import choose_device

logger = logging.getLogger(__name__)


class Refusal(MlflowException):
    """A request that is refused; its message stays as it is.

    MLflow's server writes the whole request in front of messages, which may be many megabytes.
    """

    _text = ""

    @property
    def message(self) -> str:
        """What is wrong, where, and what would do."""
        return self._text

    @message.setter
    def message(self, text: str) -> None:
        self._text = self._text or text


class ForecastModel(mlflow.pyfunc.PythonModel):
    """Autoregressive forecasts in physical units.

    The input is a dataset (``xarray.Dataset``, or what its ``to_dict`` gives) in any naming, order and units that can be
    ingested; or an array (n, channel, latitude, longitude) of states, whose coordinates are the parameters ``channel``,
    ``units``, ``latitude`` and ``longitude``, by default those of the network, which the model's metadata list.
    ``steps`` or ``lead_time_hours`` say how far to go. The output is a mapping: ``forecast`` (n, lead, channel, latitude,
    longitude), float32, with its coordinates; see ``weathermill.forecasting.requests.answer``.
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
        Refusal
            With what does not fit, where, and what would do; a server answers it with status 400.
        MlflowException
            If the forecast itself fails; a server answers it with status 500, and keeps the trace to its log.
        """
        try:
            return answer(self.forecaster, model_input, **(params or {}))
        except WeathermillError as error:
            raise Refusal(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        except Exception as error:
            logger.exception("A forecast failed")
            raise Refusal(
                f"the forecast failed: {type(error).__name__}; the log of the server says more",
                error_code=INTERNAL_ERROR,
            ) from error


mlflow.models.set_model(ForecastModel())
