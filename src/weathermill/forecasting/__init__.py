"""Forecasts with a trained network from any state that can be ingested, in physical units, in three lines.

>>> from weathermill.forecasting import forecast, load_model
>>> model = load_model("data/06_models/sample/model")
>>> weather = forecast(model, "data/01_raw/speedy_t21_sample.nc", lead_time_hours=120)
"""

from weathermill.forecasting.batches import ForecastStream
from weathermill.forecasting.calls import forecast, load_model, stream_forecasts
from weathermill.forecasting.options import ReadOptions
from weathermill.forecasting.states import StateReader

__all__ = ["ForecastStream", "ReadOptions", "StateReader", "forecast", "load_model", "stream_forecasts"]
