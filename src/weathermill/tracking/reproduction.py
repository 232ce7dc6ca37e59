"""What a run must leave so that it can be made again, and whether it can be."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework.session import KedroSession

from weathermill.errors import ReproductionError
from weathermill.incremental.plan import CODE, HISTORY, NodePlan, plan_for
from weathermill.overrides import format_override
from weathermill.redaction import redact_values
from weathermill.tracking import runs
from weathermill.tracking.run_ids import find_run, open_store
from weathermill.tracking.settings import TrackingSettings

#: The artefact that describes how a run was made.
DESCRIPTION = "reproduction.json"

_SELECTIONS = ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "namespaces")
_OPTIONS = {"node_names": "nodes"}


def command_of(run_params: Mapping[str, Any]) -> str:
    """The ``kedro run`` command of a run, from what Kedro says of it."""
    words = ["kedro", "run"]
    if run_params.get("env"):
        words.append(f"--env={run_params['env']}")
    if run_params.get("pipeline_names"):
        words.append("--pipelines=" + ",".join(run_params["pipeline_names"]))
    for name in _SELECTIONS:
        if run_params.get(name):
            words.append(f"--{_OPTIONS.get(name, name).replace('_', '-')}=" + ",".join(run_params[name]))
    if run_params.get("runtime_params"):
        given = ",".join(
            format_override(key, value) for key, value in runs.flatten(run_params["runtime_params"])
        )
        words.append(f"--params={given}")
    return shlex.join(words)


def description_of(
    run_params: Mapping[str, Any], parameters: Mapping[str, Any], plan: Sequence[NodePlan]
) -> dict[str, Any]:
    """Describe a run: its command, all its parameters, and what each node was made of."""
    selection = {name: list(run_params[name]) for name in _SELECTIONS if run_params.get(name)}
    description = {
        "command": command_of(run_params),
        "env": run_params.get("env"),
        "pipelines": list(run_params.get("pipeline_names") or []),
        "selection": selection,
        "parameters": dict(parameters),
        "software": runs.software_versions(),
        "nodes": {
            entry.node.name: {
                "ran": entry.runs,
                "parts": dict(entry.parts),
                "outputs": dict(entry.fingerprints),
            }
            for entry in plan
        },
    }
    return json.loads(json.dumps(redact_values(description), default=str))


@dataclass(frozen=True)
class Reproduction:
    """A run that was, and what is different now.

    Parameters
    ----------
    run_id
        Its id.
    description
        What `description_of` gave.
    commit
        The git commit it was made from, or empty.
    dirty
        Whether the work tree differed from the commit then.
    sources
        Inputs from outside of the run that are different now.
    code
        Nodes whose code is different now.
    software
        Packages whose version is different now: "name: then -> now".
    tags, status
        Of the run.
    """

    run_id: str
    description: Mapping[str, Any]
    commit: str
    dirty: bool
    sources: tuple[str, ...]
    code: tuple[str, ...]
    software: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = "FINISHED"

    @property
    def changed(self) -> bool:
        """Whether the same result cannot be expected."""
        return bool(self.sources or self.code)

    def text(self) -> str:
        """The command and configuration, for reading."""
        d = self.description
        lines = [f"run:        {self.run_id}", f"command:    {d['command']}"]
        if self.commit:
            lines.append(f"commit:     {self.commit}{' (with changes that were not committed)' * self.dirty}")
        lines.append("stages:     " + ", ".join(name for name, node in d["nodes"].items() if node["ran"]))
        lines += [f"  {name} = {value}" for name, value in runs.flatten(d["parameters"], "")]
        if self.software:
            lines.append("other versions now: " + ", ".join(self.software))
        return "\n".join(lines)

    def require_unchanged(self) -> None:
        """Refuse where sources or code have changed.

        Raises
        ------
        ReproductionError
            Naming what has.
        """
        if self.sources:
            raise ReproductionError(
                f"sources have changed since: {', '.join(self.sources)}", where=f"run {self.run_id}"
            )
        if self.code:
            commit = (
                f" `git checkout {self.commit}` brings it back." if self.commit and not self.dirty else ""
            )
            raise ReproductionError(
                f"the code of these stages has changed since: {', '.join(self.code)}",
                where=f"run {self.run_id}",
                remedy=f"Take the code that made the run.{commit}",
            )


def look_up(run_id: str, settings: TrackingSettings, project: Path) -> Reproduction:
    """Find out how a run was made and whether it can be made again.

    Parameters
    ----------
    run_id
        An MLflow run: its id, the beginning of it, its name, or ``newest``.
    settings
        Where runs are recorded.
    project
        The project's folder.

    Raises
    ------
    TrackingError
        If there is no such run, or several are called so.
    ReproductionError
        If it has no description.
    """
    open_store(settings, project)
    run = find_run(run_id)
    run_id = run.info.run_id
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{DESCRIPTION}")
        description = json.loads(text)
    except Exception as error:
        raise ReproductionError(
            f"there is no record of how it was made: {error}",
            where=f"run {run_id}",
            remedy="Give the id of a run that `kedro run` made; `weathermill status` lists those of the outputs.",
        ) from error
    sources, code = _differences(description, project)
    now = runs.software_versions()
    software = tuple(
        f"{name}: {version} -> {now.get(name, 'none')}"
        for name, version in description["software"].items()
        if now.get(name) != version
    )
    tags = run.data.tags
    return Reproduction(
        run_id,
        description,
        tags.get("mlflow.source.git.commit", ""),
        tags.get("git.dirty") == "true",
        sources,
        code,
        software,
        dict(tags),
        run.info.status,
    )


def _differences(description: Mapping[str, Any], project: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from kedro.framework.project import pipelines
    from kedro.pipeline import Pipeline

    with KedroSession.create(
        project, env=description["env"], runtime_params=dict(description["parameters"])
    ) as session:
        catalog = session.load_context().catalog
        combined = Pipeline([])
        for name in description["pipelines"] or ["__default__"]:
            combined += pipelines[name]
        pipeline = combined.filter(**description["selection"])
        plan = {entry.node.name: entry for entry in plan_for(pipeline, catalog)}
    made = {name for node in description["nodes"].values() for name in node["outputs"]}
    sources: dict[str, None] = {}
    code = []
    for name, then in description["nodes"].items():
        now = plan[name].parts if name in plan else {}
        if any(then["parts"].get(part) != now.get(part) for part in CODE):
            code.append(name)
        for part, digest in then["parts"].items():
            if part not in (*CODE, HISTORY) and part not in made and now.get(part) != digest:
                sources[part] = None
    return tuple(sources), tuple(code)
