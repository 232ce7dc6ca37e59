"""A Kedro runner that skips what stands."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import AbstractRunner, SequentialRunner

from weathermill.incremental.plan import NodePlan, make_plan, output_path
from weathermill.incremental.records import Record, remove_record, size_of, write_record
from weathermill.parameters import validate_parameters

logger = logging.getLogger(__name__)


def plan_for(pipeline: Pipeline, catalog: DataCatalog) -> list[NodePlan]:
    """Plan a run with the parameters that are in the catalog."""
    parameters = validate_parameters(catalog.load("parameters"))
    return make_plan(
        pipeline,
        catalog,
        {name: getattr(parameters, name) for name in type(parameters).model_fields},
        force=forced_nodes(parameters.force),
    )


def forced_nodes(force: bool | str | list[str]) -> bool | Collection[str]:
    """Turn the parameter ``force`` into names of nodes: a pipeline's name stands for its nodes."""
    from kedro.framework.project import pipelines

    if isinstance(force, bool):
        return force
    names: set[str] = set()
    for name in [force] if isinstance(force, str) else force:
        names |= {node.name for node in pipelines[name].nodes} if name in pipelines else {name}
    return names


class IncrementalRunner(SequentialRunner):
    """Runs the nodes whose outputs are out of date, one after the other, and says why the others stand."""

    def run(self, pipeline: Pipeline, catalog: DataCatalog, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run what must run; see `AbstractRunner.run`."""
        for name in pipeline.datasets():
            catalog.get(name, fallback_to_runtime_pattern=True)
        plan = plan_for(pipeline, catalog)
        for entry in plan:
            if not entry.runs and entry.records:
                logger.info("%s: skipped; %s", entry.node.name, entry.reason)
        todo = [entry for entry in plan if entry.runs]
        for entry in todo:
            logger.info("%s: to run; %s", entry.node.name, entry.reason)
        return super().run(Pipeline([entry.node for entry in todo]), catalog, *args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> None:
        # Past SequentialRunner, which only adds an advertisement of its asynchronous mode.
        AbstractRunner._run(self, *args, **kwargs)


class RecordHook:
    """Writes the record of an output once it is saved, and removes it before its node begins."""

    def __init__(self) -> None:
        self._plans: dict[str, NodePlan] = {}
        self._catalog: DataCatalog | None = None
        self._started = 0.0

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Compute the fingerprints that outputs will have."""
        self._catalog = catalog
        self._plans = {entry.node.name: entry for entry in plan_for(pipeline, catalog)}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Forget the outputs that are about to be made anew."""
        self._started = time.time()
        for name in node.outputs:
            if (path := self._path(name)) is not None:
                remove_record(path)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Write the record."""
        plan, path = self._plans.get(node.name), self._path(dataset_name)
        if plan is None or path is None or not path.exists():
            return
        run, now = mlflow.active_run(), time.time()
        record = Record(
            fingerprint=plan.fingerprints[dataset_name],
            node=node.name,
            made=now,
            seconds=now - self._started,
            size=size_of(path),
            run_id=run.info.run_id if run else "",
            parts=dict(plan.parts),
        )
        write_record(path, record)

    def _path(self, name: str) -> Path | None:
        return None if self._catalog is None else output_path(self._catalog.get(name))
