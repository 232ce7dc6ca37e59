"""Kedro's project settings."""

from __future__ import annotations

import os

# Before MLflow is imported. Neither Kedro's telemetry plugin nor MLflow's may report anything unless the user says so;
# MLflow talks a lot while it is at work, and what matters to users is logged here.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

from weathermill.hooks import DaskHook, MLflowHook, ParametersHook
from weathermill.incremental.runner import RecordHook

# The last hook here runs first.
HOOKS = (MLflowHook(), RecordHook(), DaskHook(), ParametersHook())

DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {"parameters": "soft", "mlflow": "soft", "dask": "soft"},
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**"], "dask": ["dask*", "dask*/**"]},
}
