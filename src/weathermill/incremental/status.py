"""What stands and what is to do, as text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from kedro.framework.context import KedroContext
from kedro.io import DataCatalog
from rich.console import Console
from rich.table import Table

from weathermill.incremental.inputs import require_inputs
from weathermill.incremental.needs import needs_of
from weathermill.incremental.plan import NodePlan, plan_for
from weathermill.incremental.selection import Selection, combined_pipeline
from weathermill.parameters import validate_parameters
from weathermill.tracking.pending import synced_runs
from weathermill.tracking.run_ids import short_id


def planned(
    context: KedroContext, selection: Selection, load_versions: Mapping[str, str] | None = None
) -> tuple[list[NodePlan], DataCatalog]:
    """Plan a run as the run itself would, without doing anything.

    Parameters
    ----------
    context
        The project, with the environment, configuration and parameters of the run.
    selection
        What was asked for.
    load_versions
        Versions of datasets to load, by name.

    Returns
    -------
    tuple of list of NodePlan, DataCatalog
        The plan, and the catalog that it is made for.

    Raises
    ------
    ConfigurationError
        If a name is unknown, or something that a node reads does not exist and is not made.
    """
    versions = dict(load_versions or {})
    catalog = context._get_catalog(load_versions=versions) if versions else context.catalog
    plan = plan_for(selection.pipeline(), catalog, selection=selection)
    require_inputs(plan, catalog)
    return plan, catalog


def describe_plan(
    context: KedroContext, selection: Selection, load_versions: Mapping[str, str] | None = None
) -> str:
    """Say, a line each, which nodes would run, why and in how much memory; which stand; and what the disk needs.

    The parameters are those of `planned`.
    """
    plan, catalog = planned(context, selection, load_versions)
    needs = needs_of(plan, catalog, validate_parameters(catalog.load("parameters")))
    lines = []
    for entry in plan:
        if entry.runs or entry.records:
            memory = needs.memory.get(entry.node.name) if entry.runs else None
            about = f" (about {memory / 2**20:,.0f} MiB of memory)" if memory is not None else ""
            lines.append(f"{'run ' if entry.runs else 'skip'}  {entry.node.name}: {entry.why}{about}")
    if needs.disk:
        lines.append(f"disk  at most {sum(needs.disk.values()) / 2**20:,.1f} MiB will be written")
    return "\n".join(lines)


def status_table(context: KedroContext, names: Sequence[str], *, made_by: str | None = None) -> str:
    """Show every output on disk: node, state, fingerprint, size, age and MLflow run.

    Parameters
    ----------
    context, names
        The project and its pipelines.
    made_by
        Show only the outputs that this run made.
    """
    synced = synced_runs(Path(context.project_path))
    table = Table("node", "output", "state", "fingerprint", "size", "age", "MLflow run")
    for plan in plan_for(combined_pipeline(names), context.catalog):
        for name, fingerprint in plan.fingerprints.items():
            record = plan.records.get(name)
            run_id = synced.get(record.run_id, record.run_id) if record is not None else ""
            if made_by is not None and run_id != made_by:
                continue
            if record is None:
                if plan.runs and "memory only" not in plan.reason:
                    table.add_row(plan.node.name, name, "to be made", fingerprint[:12], "", "", "")
                continue
            state = "stands" if not plan.runs else f"out of date ({plan.reason})"
            size = f"{record.size / 2**20:.1f} MiB"
            table.add_row(
                plan.node.name, name, state, record.fingerprint[:12], size, record.age, short_id(run_id)
            )
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()
