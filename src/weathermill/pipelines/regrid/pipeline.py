"""The regrid pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from weathermill.pipelines.regrid.nodes import (
    choose_target_grid,
    judge_regridding,
    make_regrid_weights,
    regrid_fields,
    report_regridding,
)


def create_pipeline() -> Pipeline:
    """Canonical fields to the grid of the network, with weights that are kept and a report."""
    return Pipeline(
        [
            Node(choose_target_grid, ["fields", "params:regrid"], "target_grid", name="choose_target_grid"),
            Node(
                make_regrid_weights,
                ["fields", "target_grid", "known_regrid_weights", "params:regrid"],
                "regrid_weights",
                name="make_regrid_weights",
            ),
            Node(
                regrid_fields,
                ["fields", "regrid_weights", "target_grid", "params:regrid"],
                "regridded",
                name="regrid",
                tags=["dask"],
            ),
            Node(
                report_regridding,
                ["fields", "regridded", "regrid_weights"],
                ["regrid_report", "regrid_page"],
                name="report_regridding",
                tags=["dask"],
            ),
            Node(
                judge_regridding,
                ["regrid_report", "params:regrid"],
                "regrid_metrics",
                name="judge_regridding",
            ),
        ]
    )
