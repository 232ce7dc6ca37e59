"""How much disk space a run will need, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from kedro.io import DataCatalog

from weathermill.fields.timeaxis import day_number
from weathermill.incremental.plan import NodePlan, output_path
from weathermill.incremental.records import stored_record
from weathermill.incremental.shapes import FLOAT, Shapes
from weathermill.parameters import ForecastParameters, IngestParameters, InitialTimes, Parameters
from weathermill.pipelines.train.configuration import model_config
from weathermill.training.ledger import blank_forecaster
from weathermill.verification.formulas import PER_INIT
from weathermill.verification.regions import DEFAULT_REGIONS

DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
#: Bytes of a weight (row, column, value) and of a cell (place, area, fraction, mask) in a file of weights.
_WEIGHT, _CELL = 16, 44
#: The forecast, persistence, climatology and a regression.
_SOURCES = 4
#: A picture of 130 dots an inch; and how much longer it is in a page.
_PICTURE, _IN_A_PAGE = 200_000, 4 / 3
#: Pictures that do not depend on the parameters.
_CURVES = 12
#: Names, axes and attributes of any output.
_HEADER = 2**17
#: What MLflow keeps no copy of.
_ONCE = {"fields", "regridded", "normalised", "tensors", "regrid_weights", "checkpoints", "forecasts"}


def outputs_of(plan: Sequence[NodePlan]) -> set[str]:
    """Names of what the nodes that run write."""
    running = [entry.node for entry in plan if entry.runs]
    # Checkpoints are an input that the training writes to.
    return {name for node in running for name in node.outputs} | (
        {"checkpoints"} & {name for node in running for name in node.inputs}
    )


def estimate_disk(
    plan: Sequence[NodePlan], catalog: DataCatalog, parameters: Parameters, shapes: Shapes | None
) -> dict[Path, int]:
    """Estimate the bytes that the run will add to the disk, by output.

    Everything is reckoned from the axes of the sources or stores and from the parameters, uncompressed, which is an
    upper bound. Outputs of which MLflow keeps a copy count twice. Where nothing says how large the data are, outputs
    count with the size that they had before.

    Parameters
    ----------
    plan
        What will run.
    catalog
        The catalog.
    parameters
        All parameters.
    shapes
        How large the data are, if that is known.
    """
    paths = {
        name: path
        for name in outputs_of(plan)
        if name in catalog and (path := output_path(catalog.get(name))) is not None
    }
    reckoned = reckon(shapes, parameters) if shapes is not None else {}
    needed: dict[Path, int] = {}
    for name, path in paths.items():
        record = stored_record(path)
        size = reckoned.get(name, record.size if record else 0) + _HEADER
        needed[path] = needed.get(path, 0) + size * (1 if name in _ONCE else 2)
    return needed


def reckon(shapes: Shapes, parameters: Parameters) -> dict[str, int]:
    """Bytes of every output whose size depends on the data, by name in the catalog."""
    evaluate, forecast = parameters.evaluate, parameters.forecast
    field = shapes.cells * FLOAT
    source_field = int(np.prod(shapes.source)) * FLOAT
    target = shapes.times * shapes.target_step + shapes.static * field
    tensors = shapes.times * shapes.target_step // FLOAT * DTYPE_BYTES[parameters.tensors.dtype]
    weights, state = network_bytes(shapes, parameters)
    steps = shapes.steps(evaluate.lead_time_hours)
    forecast_bytes = shapes.steps(forecast.lead_time_hours) * shapes.prognostic * field
    regions = len(DEFAULT_REGIONS) + len(evaluate.regions)
    # Test forecasts are no more than there are states; how many the split holds is not known here.
    scored = _SOURCES * shapes.prognostic * regions * steps * 8
    maps = len(evaluate.map_channels) * len(evaluate.map_lead_times_hours)
    pictures = (_CURVES + maps) * _PICTURE
    return {
        "fields": shapes.times * shapes.source_step + shapes.static * source_field,
        "regrid_weights": _weights_bytes(shapes, parameters.regrid.method),
        "regridded": target,
        "regrid_page": int(_variables(parameters.ingest) * _PICTURE * _IN_A_PAGE),
        "normalised": target,
        "tensors": tensors + shapes.static * field,
        "model": weights,
        # The last ones, the best, and the one being written.
        "checkpoints": state * (parameters.train.keep_checkpoints + 2),
        "scores": scored * (len(PER_INIT) + 3 * _test_states(shapes, parameters) // evaluate.initial_step),
        "score_intervals": scored * 4 * len(PER_INIT),
        "seasonal_scores": scored * 5 * len(PER_INIT),
        "scores_table": scored * 2 * len(PER_INIT),
        "example_forecast": 3 * steps * shapes.prognostic * field,
        "figures": pictures,
        "model_card": int(pictures * _IN_A_PAGE) + 2**20,
        "forecast": forecast_bytes,
        "forecasts": forecast_bytes * _initial_times(forecast, shapes),
    }


def network_bytes(shapes: Shapes, parameters: Parameters) -> tuple[int, int]:
    """Bytes of a network's file, and of a training's state: weights, the optimiser's two moments, an average."""
    network = blank_forecaster(
        model_config(parameters.model),
        shapes.prognostic,
        shapes.target,
        n_forcing=shapes.forcing,
        n_static=shapes.static,
    )
    learnt = sum(p.numel() * p.element_size() for p in network.parameters())
    kept = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    average = learnt if parameters.train.step.ema_decay is not None else 0
    return kept, 2 * learnt + average + kept


def _weights_bytes(shapes: Shapes, method: str) -> int:
    (rows, columns), (target_rows, target_columns) = shapes.source, shapes.target
    target, source = shapes.cells, rows * columns
    count = {
        # Two sorted rows of intervals overlap in fewer pairs than both have intervals.
        "conservative": (rows + target_rows) * (columns + target_columns),
        "bilinear": 4 * target,
        "nearest_s2d": target,
        "nearest_d2s": source,
        "patch": 40 * target,
    }
    known = count.get(method.removesuffix("_normed"), count["conservative"])
    return known * _WEIGHT + (source + target) * _CELL


def _variables(ingest: IngestParameters) -> int:
    names = (ingest.variables, ingest.surface_variables, ingest.forcing_variables, ingest.static_variables)
    return sum(map(len, names))


def _test_states(shapes: Shapes, parameters: Parameters) -> int:
    share = parameters.splits.test
    return int(shapes.times * share) if isinstance(share, float) else shapes.times


def _initial_times(forecast: ForecastParameters, shapes: Shapes) -> int:
    times = forecast.initial_times
    if isinstance(times, list):
        return len(times)
    if not isinstance(times, InitialTimes) or times.start is None or times.stop is None:
        return shapes.times
    hours = 24.0 * (day_number(times.stop) - day_number(times.start))
    return max(1, int(hours // (times.every_hours or shapes.step_hours)))
