"""What a run needs of the machine, told and checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kedro.io import DataCatalog

from weathermill.fields.grids import named_grid
from weathermill.incremental.estimates import estimate_disk, outputs_of
from weathermill.incremental.memory_estimates import predict_memory, require_memory
from weathermill.incremental.plan import NodePlan, output_path
from weathermill.incremental.resources import require_disk
from weathermill.incremental.shapes import Shapes, shapes_of
from weathermill.parameters import Parameters
from weathermill.pipelines.feasibility import require_network, require_rectangular, require_splits


@dataclass(frozen=True)
class Needs:
    """Bytes that a run will need.

    Parameters
    ----------
    memory
        The peak of host memory of each stage, by the name of its node; empty where nothing is known.
    disk
        What the run adds to the disk, by output.
    """

    memory: Mapping[str, int] = field(default_factory=dict)
    disk: Mapping[Path, int] = field(default_factory=dict)

    def require(self, parameters: Parameters) -> None:
        """Refuse the run if it cannot have what it needs.

        Raises
        ------
        ResourceError
            Naming the stage, or the file system.
        """
        require_memory(self.memory, parameters)
        if parameters.resources.disk_check:
            require_disk(self.disk)


def needs_of(plan: Sequence[NodePlan], catalog: DataCatalog, parameters: Parameters) -> Needs:
    """Estimate what a run will need, from axes alone.

    Raises
    ------
    GridError
        If the run will regrid to a grid that there is not, or keep one that no network takes: better now than after
        hours of ingesting.
    TimeAxisError, SplitError, ModelError, ParameterError
        If it will train, and there are too few times for that, or the network does not suit its grid.
    """
    if not any(entry.runs for entry in plan):
        return Needs()
    if "target_grid" in outputs_of(plan) and parameters.regrid.target is not None:
        named_grid(parameters.regrid.target)
    shapes = shapes_of(catalog, parameters, outputs_of(plan))
    _require_feasible(plan, shapes, parameters)
    lazy = {
        name
        for name in {"fields", "regridded", "normalised"} & outputs_of(plan)
        if name in catalog and output_path(catalog.get(name)) is None
    }
    return Needs(
        predict_memory(plan, shapes, parameters, lazy), estimate_disk(plan, catalog, parameters, shapes)
    )


def _require_feasible(plan: Sequence[NodePlan], shapes: Shapes | None, parameters: Parameters) -> None:
    if shapes is None:
        # Whoever reads the sources tells what is wrong with them.
        return
    trains = any(entry.runs and "checkpoints" in entry.node.inputs for entry in plan)
    if trains or "statistics" in outputs_of(plan):
        require_rectangular(shapes.curvilinear, parameters)
        if shapes.time_axis is not None:
            require_splits(shapes.time_axis, parameters)
        channels = (shapes.prognostic, shapes.forcing, shapes.static)
        require_network(channels, shapes.target, parameters, shapes.axes)
