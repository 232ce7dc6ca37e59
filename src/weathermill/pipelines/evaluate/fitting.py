"""Whether a network and a store are made for each other."""

from __future__ import annotations

import numpy as np

from weathermill.errors import ModelError
from weathermill.models.forecaster import Forecaster
from weathermill.tensors.store import TensorStore

_SHOWN = 5


def require_fitting(store: TensorStore, forecaster: Forecaster) -> None:
    """Refuse to let a network forecast from a store of other channels, of another grid or time step.

    Raises
    ------
    ModelError
        Saying in what they differ.
    """
    ours, theirs = forecaster.channels.names, store.channels.names
    if ours != theirs:
        _refuse(f"its channels are others than those of the store: {_difference(ours, theirs)}")
    if forecaster.grid_shape != store.grid_shape or not (
        np.allclose(forecaster.latitude, store.latitude)
        and np.allclose(forecaster.longitude, store.longitude)
    ):
        _refuse(f"its grid is another than that of the store: {_grid(forecaster)}, and {_grid(store)}")
    if forecaster.time_step != store.time_step:
        _refuse(
            f"it steps {forecaster.time_step} s ahead, and the states of the store are {store.time_step} s apart"
        )


def _refuse(what: str) -> None:
    raise ModelError(
        f"the network cannot forecast from this store: {what}",
        where="model, tensors",
        remedy="Train for this store with `kedro run --pipelines=train,evaluate`, or bring back the parameters of"
        " `ingest` and `regrid` that the network was trained with.",
    )


def _difference(ours: list[str], theirs: list[str]) -> str:
    parts = []
    for text, names in (
        ("the store lacks", [name for name in ours if name not in theirs]),
        ("the network does not know", [name for name in theirs if name not in ours]),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{text} {', '.join(names[:_SHOWN])}{more}")
    return "; ".join(parts) or "they come in another order"


def _grid(of: TensorStore | Forecaster) -> str:
    rows, columns = of.grid_shape
    return f"{rows} x {columns} from {of.latitude[0]:g} N, {of.longitude[0]:g} E"
