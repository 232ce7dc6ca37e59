"""Whether a network can be trained on fields at all: told from axes, before anything is read or computed.

The same check stands before `kedro run` and behind `weathermill inspect`, so that both come to one verdict.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from weathermill.errors import GridError
from weathermill.models.suitability import require_suitable_grid
from weathermill.parameters import Parameters
from weathermill.pipelines.splitting import period_runs, time_seconds, time_step_seconds
from weathermill.pipelines.train.configuration import model_config
from weathermill.tensors.splits import Runs
from weathermill.training.ledger import blank_forecaster
from weathermill.training.sampling import Sampling
from weathermill.training.spectral import require_circles


def require_splits(times: np.ndarray, parameters: Parameters) -> dict[str, Runs]:
    """Refuse times that cannot be split into training, validation and test periods.

    Parameters
    ----------
    times
        (time,) datetime64 or cftime.
    parameters
        All parameters.

    Returns
    -------
    dict
        Runs of time indices by split.

    Raises
    ------
    TimeAxisError, SplitError
        Where there are too few times, or they are uneven.
    """
    axis = xr.Dataset(coords={"time": ("time", times)})
    if times.size < 2:
        time_step_seconds(np.zeros(times.size, dtype=np.int64))
    seconds, calendar = time_seconds(axis)
    runs = period_runs(seconds, calendar, time_step_seconds(seconds), parameters.splits)
    train = tuple((int(start), int(stop)) for start, stop in runs["train"])
    for steps in sorted(set(parameters.train.rollout)):
        Sampling(train, parameters.train.batch_size, shuffle=False, drop_last=False).order(0, steps)
    return runs


def require_network(
    channels: tuple[int, int, int],
    grid: tuple[int, int],
    parameters: Parameters,
    axes: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Refuse a grid that the network, or its loss, cannot work on.

    Parameters
    ----------
    channels
        Prognostic, forcing and static.
    grid
        Latitudes and longitudes.
    parameters
        All parameters.
    axes
        Latitudes and longitudes in degrees, where they are known.

    Raises
    ------
    GridError, ModelError, ParameterError
        Naming the grid, or the parameter.
    """
    if min(grid) < 2:
        raise GridError(
            f"a grid of {grid[0]} x {grid[1]} points is a line or a point, and a network needs a map",
            remedy="Take sources with at least two latitudes and longitudes.",
        )
    if axes is not None:
        latitude, longitude = axes
        require_suitable_grid(model_config(parameters.model), latitude, longitude)
        if parameters.train.spectral_weight:
            require_circles(longitude)
    prognostic, forcing, static = channels
    blank_forecaster(model_config(parameters.model), prognostic, grid, n_forcing=forcing, n_static=static)


def require_rectangular(curvilinear: bool, parameters: Parameters) -> None:
    """Refuse fields on a curvilinear grid that is to be kept.

    Raises
    ------
    GridError
        Asking for a target grid.
    """
    if curvilinear and parameters.regrid.target is None:
        raise GridError(
            "the fields lie on a curvilinear grid, and the network needs a latitude-longitude grid",
            remedy="Name one that they cover in `regrid.target`, such as 1deg, or {latitude: [60, 40],"
            " longitude: [0, 20], step: 0.5} for a region.",
        )
