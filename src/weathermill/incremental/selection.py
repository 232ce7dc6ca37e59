"""Pipelines by name."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.framework.project import pipelines
from kedro.pipeline import Pipeline

from weathermill.faults import require_known


def combined_pipeline(names: Sequence[str] = ()) -> Pipeline:
    """Put the pipelines of these names together; the default one when there are none.

    Raises
    ------
    ConfigurationError
        If a name is that of no pipeline.
    """
    require_known(names, list(pipelines), "pipeline", "Choose one of these with --pipelines.")
    combined = Pipeline([])
    for name in names or ["__default__"]:
        combined += pipelines[name]
    return combined
