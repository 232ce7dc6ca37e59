"""Kedro's runners, of which each skips what stands; those that run nodes beside each other are refused."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner, ThreadRunner
from pluggy import PluginManager

from weathermill.errors import ConfigurationError
from weathermill.incremental.contents import in_batches
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.plan import NodePlan, plan_for
from weathermill.incremental.selection import in_memory

logger = logging.getLogger(__name__)

_ORIGINAL = "_kedros_own_run"
_CLASS_OF_OBJECT = re.compile(r"^<([\w.]+) object at ")


def _kedros_own_run() -> Callable[..., dict[str, Any]]:
    return getattr(AbstractRunner.run, _ORIGINAL, AbstractRunner.run)


def skip_in_every_runner() -> None:
    """Have every runner of Kedro's skip what stands, in runs of projects that have an `IncrementalHook`.

    Kedro has no setting for the runner that ``KedroSession.run`` takes when none is given, and no hook by which nodes
    are left out. Without this a script or a notebook would train again what stands. Doing it twice changes nothing.
    """
    original = _kedros_own_run()

    @functools.wraps(original)
    def run(
        self: AbstractRunner,
        pipeline: Pipeline,
        catalog: DataCatalog,
        hook_manager: PluginManager | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if _incremental(hook_manager) is None:
            return original(self, pipeline, catalog, hook_manager, *args, **kwargs)
        return _run_what_must(self, pipeline, catalog, hook_manager, *args, **kwargs)

    setattr(run, _ORIGINAL, original)
    AbstractRunner.run = run


def _incremental(hook_manager: PluginManager | None) -> IncrementalHook | None:
    plugins = hook_manager.get_plugins() if hook_manager is not None else ()
    return next((plugin for plugin in plugins if isinstance(plugin, IncrementalHook)), None)


def _run_what_must(
    runner: AbstractRunner,
    pipeline: Pipeline,
    catalog: DataCatalog,
    hook_manager: PluginManager | None,
    *args: Any,
    **kwargs: Any,
) -> dict[str, Any]:
    """Run the nodes of the plan that must run; give all outputs of the pipeline, as `AbstractRunner.run` does."""
    hook = _incremental(hook_manager)
    plan = hook.plan if hook is not None else plan_for(pipeline, catalog)
    for entry in plan:
        if not entry.runs and entry.records:
            logger.info("%s: skipped; %s", entry.node.name, entry.reason)
    todo = [entry for entry in plan if entry.runs]
    for entry in todo:
        logger.info("%s: to run; %s", entry.node.name, entry.why)
    if "only_missing_outputs" in kwargs:
        # The plan has heeded it.
        kwargs["only_missing_outputs"] = False
    made: dict[str, Any] = {}

    def run(nodes: list[Node]) -> None:
        made.update(_kedros_own_run()(runner, Pipeline(nodes), catalog, hook_manager, *args, **kwargs))

    try:
        if hook is not None and any(entry.unless_equal for entry in todo):
            with _kept_between_calls(todo, pipeline, catalog):
                in_batches(plan, lambda name: in_memory(name, catalog), run, hook.leave_out_if_equal)
        else:
            run([entry.node for entry in todo])
    except BaseException as error:
        if hook is not None:
            hook.release()
        if not isinstance(error, Exception):
            # Kedro tells hooks of errors only, and not of signals.
            for plugin in hook_manager.get_plugins() if hook_manager is not None else ():
                getattr(plugin, "interrupted", lambda: None)()
        raise
    standing = {name: catalog[name] for name in pipeline.outputs() if not in_memory(name, catalog)}
    return standing | {name: dataset for name, dataset in made.items() if name in pipeline.outputs()}


@contextlib.contextmanager
def _kept_between_calls(todo: list[NodePlan], pipeline: Pipeline, catalog: DataCatalog) -> Iterator[None]:
    """Keep datasets in memory, of which Kedro lets go where no later node of the same call reads them."""
    made = {
        name for entry in todo for name in entry.node.outputs if name in catalog and in_memory(name, catalog)
    }
    kept = {name: catalog.get(name) for name in made}
    for dataset in kept.values():
        dataset.release = lambda: None
    try:
        yield
    finally:
        for name, dataset in kept.items():
            del dataset.release
            if name not in pipeline.outputs():
                dataset.release()


def refuse_pools(runner: type[AbstractRunner]) -> None:
    """Refuse a runner that runs nodes beside each other, in processes or threads.

    Raises
    ------
    ConfigurationError
        Saying why, and what to do.
    """
    if issubclass(runner, ParallelRunner):
        why = "runs nodes in copies of this process, in which the threads of torch and Dask wait for each other without end"
    elif issubclass(runner, ThreadRunner):
        why = "runs nodes beside each other, which together take more memory than is foreseen, and which no signal stops"
    else:
        return
    raise ConfigurationError(
        f"{runner.__name__} {why}",
        where="runner",
        remedy="Leave the runner out, or take SequentialRunner: one node runs after the other, each on all cores "
        "(torch's threads and Dask's; conf/<env>/dask.yml may start a cluster).",
    )


def runner_class(described: str) -> type[AbstractRunner] | None:
    """Find the class of a runner by the text that Kedro gives hooks, such as ``<module.Name object at 0x7f…>``."""
    if (found := _CLASS_OF_OBJECT.match(described)) is None:
        return None
    module, _, name = found[1].rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, AbstractRunner) else None


class RunnerHook:
    """Refuses runners that cannot work, before any other hook; lets go of what hooks hold when one of them refuses.

    Kedro tells hooks of no error that comes up before the first node. In a notebook the process goes on after it.

    Parameters
    ----------
    hooks
        Those that have a method ``interrupted``.
    """

    def __init__(self, *hooks: Any) -> None:
        self._hooks = hooks

    @hook_impl(hookwrapper=True)
    def before_pipeline_run(self, run_params: dict[str, Any]) -> Iterable[None]:
        """Look at the runner, then have the other hooks prepare the run.

        Raises
        ------
        ConfigurationError
            If the runner runs nodes beside each other.
        """
        kind = runner_class(str(run_params.get("runner")))
        if kind is not None:
            refuse_pools(kind)
        outcome = yield
        if outcome.excinfo is not None:
            for hook in self._hooks:
                hook.interrupted()


class IncrementalRunner(SequentialRunner):
    """Kedro's `SequentialRunner` with advice that fits runs that skip what stands; ``kedro run`` takes it."""

    def run(
        self,
        pipeline: Pipeline,
        catalog: DataCatalog,
        hook_manager: PluginManager | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run what must run; see `AbstractRunner.run`."""
        return _run_what_must(self, pipeline, catalog, hook_manager, *args, **kwargs)

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
