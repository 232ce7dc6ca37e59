"""Nodes of the compare pipeline."""

from __future__ import annotations

import logging

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from weathermill.parameters import CompareParameters
from weathermill.tracking.comparison import compare_runs, parse_runs
from weathermill.verification.comparison_page import comparison_frame

logger = logging.getLogger(__name__)


def compare_two_runs(
    parameters: CompareParameters, seed: int
) -> tuple[xr.Dataset, pd.DataFrame, str, dict[str, Figure], str]:
    """Compare two MLflow runs: numbers, table, page, scorecards and a summary.

    Raises
    ------
    ParameterError
        If there are not two.
    VerificationError
        If they are unknown, have no scores or cannot be compared.
    """
    before, after = parse_runs(parameters.runs)
    comparison = compare_runs(
        before,
        after,
        source=parameters.source,
        level=parameters.confidence,
        n_resamples=parameters.bootstrap_samples,
        seed=seed,
    )
    if parameters.log:
        logger.info("Added to the artefacts of %s: %s", comparison.names[0], comparison.log())
    figures = {f"{name}.png": figure for name, figure in comparison.figures().items()}
    summary = comparison.summary()
    logger.info("%s", summary)
    return comparison.dataset, comparison_frame(comparison.dataset), comparison.page(), figures, summary
