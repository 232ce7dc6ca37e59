"""Kedro's project settings."""

from __future__ import annotations

import os

# Before MLflow is imported. Neither Kedro's telemetry plugin nor MLflow's may report anything unless the user says so;
# MLflow talks a lot while it is at work, and what matters to users is logged here.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# A tracking server that does not answer is given up soon; what it did not take is kept and told later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")

from weathermill.cases import CaseConfigLoader
from weathermill.hooks import DaskHook, MLflowHook, ParametersHook
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.runner import RunnerHook, skip_in_every_runner
from weathermill.incremental.scratch import ScratchHook
from weathermill.incremental.termination import TerminationHook

# Sessions in scripts and notebooks take Kedro's own runners.
skip_in_every_runner()

# The last hook here runs first.
_incremental, _dask = IncrementalHook(), DaskHook()
HOOKS = (
    MLflowHook(_incremental),
    _dask,
    _incremental,
    ParametersHook(),
    ScratchHook(),
    TerminationHook(),
    RunnerHook(_incremental, _dask),
)

DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",)

CONFIG_LOADER_CLASS = CaseConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    # What `kedro run` runs without --env.
    "default_run_env": "sample",
    "merge_strategy": {"parameters": "soft", "mlflow": "soft", "dask": "soft"},
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**"], "dask": ["dask*", "dask*/**"]},
}
