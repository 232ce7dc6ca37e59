"""A Kedro runner that skips what stands."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import AbstractRunner, SequentialRunner
from pluggy import PluginManager

from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.plan import plan_for

logger = logging.getLogger(__name__)


class IncrementalRunner(SequentialRunner):
    """Runs the nodes whose outputs are out of date, one after the other, and says why the others stand."""

    def run(
        self,
        pipeline: Pipeline,
        catalog: DataCatalog,
        hook_manager: PluginManager | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run what must run; see `AbstractRunner.run`."""
        plugins = hook_manager.get_plugins() if hook_manager is not None else ()
        hook = next((plugin for plugin in plugins if isinstance(plugin, IncrementalHook)), None)
        plan = hook.plan if hook is not None else plan_for(pipeline, catalog)
        for entry in plan:
            if not entry.runs and entry.records:
                logger.info("%s: skipped; %s", entry.node.name, entry.reason)
        todo = [entry for entry in plan if entry.runs]
        for entry in todo:
            logger.info("%s: to run; %s", entry.node.name, entry.reason)
        try:
            return super().run(
                Pipeline([entry.node for entry in todo]), catalog, hook_manager, *args, **kwargs
            )
        except BaseException as error:
            if hook is not None:
                hook.release()
            if not isinstance(error, Exception):
                # Kedro tells hooks of errors only, and not of signals.
                for plugin in plugins:
                    getattr(plugin, "interrupted", lambda: None)()
            raise

    def _run(self, *args: Any, **kwargs: Any) -> None:
        # Past SequentialRunner, which only adds an advertisement of its asynchronous mode.
        AbstractRunner._run(self, *args, **kwargs)

    def _suggest_resume_scenario(self, pipeline: Pipeline, done_nodes: Iterable[Node], catalog: Any) -> None:
        # Kedro would name nodes to begin from; here the same command does, because what stands is skipped.
        done = list(done_nodes)
        if not done:
            return
        logger.warning(
            "%d of %d nodes were completed; what they made stands, and the same command goes on from there",
            len(done),
            len(pipeline.nodes),
        )
