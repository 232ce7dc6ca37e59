"""Making a run again from the data, beside what stands, and comparing what came out."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from weathermill.datasets.checkpoints import CheckpointsDataset
from weathermill.errors import ReproductionError
from weathermill.incremental.plan import output_path, plan_for
from weathermill.incremental.records import read_record
from weathermill.incremental.relocation import Relocation, relocated
from weathermill.tracking.reproduction import Reproduction
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import LOCAL_PREFIX, MLflowTracker

#: Folder, below the project's data, of outputs that are made again.
FOLDER = Path("data", "reproductions")
#: The tag that leads from a run to the one that it makes again.
REPRODUCES = "reproduces.run_id"
#: Measurements of time, speed and memory, which no two runs share.
_MEASURED = ("stage/", "speed/", "feed/", "memory/")
_TRAINING = "training"

Series = list[tuple[int, float]]


@dataclass(frozen=True)
class Comparison:
    """What came out of a run that was made again, beside what came out at first.

    Parameters
    ----------
    run_id
        Of the new run.
    compared
        Metrics that both runs have, by the node that made them: how many.
    different
        Metrics whose series of values differ: the last values.
    not_made
        Metrics that only the first run has.
    same_bytes, other_bytes
        Outputs that stand and are those of the first run, and have the bytes of the new ones, or others.
    folder
        Where the new outputs are, as long as they are kept.
    """

    run_id: str
    compared: Mapping[str, int]
    different: Mapping[str, tuple[float, float]]
    not_made: tuple[str, ...]
    same_bytes: tuple[str, ...] = ()
    other_bytes: tuple[str, ...] = ()
    folder: Path = field(default_factory=Path)

    @property
    def equal(self) -> bool:
        """Whether all metrics are equal; where there are none, whether outputs have the same bytes.

        Outputs that hold times of day or durations never have.
        """
        return not self.different if self.compared else bool(self.same_bytes)

    def text(self) -> str:
        """What was compared, and how it turned out."""
        number = sum(self.compared.values())
        nodes = ", ".join(f"{node} {count}" for node, count in self.compared.items())
        lines = [
            f"run {self.run_id}: "
            + (
                f"{number - len(self.different)} of {number} metrics are equal at every step ({nodes})"
                if number
                else "there are no metrics to compare"
            )
        ]
        lines += [f"  {name}: {before:g} -> {after:g}" for name, (before, after) in self.different.items()]
        if self.not_made:
            lines.append(f"not made again, and not compared: {', '.join(self.not_made)}")
        if self.same_bytes:
            lines.append(f"outputs with the same bytes: {', '.join(self.same_bytes)}")
        if self.other_bytes:
            lines.append(f"outputs with other bytes: {', '.join(self.other_bytes)}")
        return "\n".join(lines)


def require_reproducible(reproduction: Reproduction) -> None:
    """Refuse a run that cannot be made again.

    Raises
    ------
    ReproductionError
        If it did not end well, made nothing, or resumed a training whose history is not that of one training.
    """
    where = f"run {reproduction.run_id}"
    tags, nodes = reproduction.tags, reproduction.description["nodes"]
    if reproduction.status != "FINISHED":
        raise ReproductionError(
            f"it did not come to its end ({reproduction.status}), so that there is nothing whole to compare with",
            where=where,
            remedy=f"Run it to its end: `{reproduction.description['command']}`.",
        )
    if not any(node["ran"] for node in nodes.values()):
        makers = sorted({v for k, v in tags.items() if k.startswith("upstream.") and k.endswith(".run_id")})
        raise ReproductionError(
            "it made nothing: all that it was asked for stood already",
            where=where,
            remedy="Reproduce the runs that made it: "
            + (", ".join(makers) or "`weathermill status` lists them."),
        )
    trains = any(node["ran"] and "checkpoints" in node["parts"] for node in nodes.values())
    if not trains or not _resumes(reproduction.description):
        return
    phases = tags.get("training.phases")
    if phases != "1":
        told = tags.get("training.history", "")
        raise ReproductionError(
            "its training went on from a checkpoint, "
            + (
                f"and has {phases} phases: {told}"
                if phases
                else "and with what it was trained before is not recorded"
            ),
            where=where,
            remedy="Reproduce the runs of its phases one by one (tag resumed_from.run_id), or train anew with "
            "`train.resume=false`.",
        )


def make_again(reproduction: Reproduction, project: Path, settings: TrackingSettings) -> Comparison:
    """Execute a run's stages with its parameters, as a new run with outputs of its own, and compare them.

    What the run found standing is read where it stands if it is still the same, and made again beside it otherwise. A
    training that was resumed without a change is made again from its first step. Nothing that stands is touched, and no
    model is registered. The new outputs are kept where something differs.

    Raises
    ------
    ReproductionError
        If sources or code have changed, or see `require_reproducible`.
    """
    from weathermill.incremental.runner import IncrementalRunner

    reproduction.require_unchanged()
    require_reproducible(reproduction)
    if not settings.enabled:
        raise ReproductionError(
            "the new run would not be recorded, so that nothing could be compared",
            where="mlflow.yml",
            remedy="Set `enabled: true` there.",
        )
    description = reproduction.description
    ran = [name for name, node in description["nodes"].items() if node["ran"]]
    parameters = {**description["parameters"], "force": ran}
    if isinstance(parameters.get("train"), Mapping):
        parameters["train"] = {**parameters["train"], "resume": False}
    root = project / FOLDER / reproduction.run_id[:12]
    pipeline = _pipeline(description)
    made = _made(description, parameters, pipeline, project, ran)
    shutil.rmtree(root, ignore_errors=True)
    comparison: Comparison | None = None
    try:
        with relocated(Relocation(root, project, frozenset(pipeline.datasets()), frozenset(made))):
            with KedroSession.create(project, env=description["env"], runtime_params=parameters) as session:
                session.run(
                    pipeline_names=description["pipelines"] or None,
                    runner=IncrementalRunner(),
                    **description["selection"],
                )
            with KedroSession.create(project, env=description["env"], runtime_params=parameters) as session:
                new = session.load_context().catalog
        with KedroSession.create(project, env=description["env"], runtime_params=parameters) as session:
            standing = session.load_context().catalog
        comparison = _compare(
            reproduction, MLflowTracker.last_run_id or "", pipeline, new, standing, made, settings, root
        )
    finally:
        if comparison is None or comparison.equal:
            shutil.rmtree(root, ignore_errors=True)
            with contextlib.suppress(OSError):
                root.parent.rmdir()
    return comparison


def _resumes(description: Mapping[str, Any]) -> bool:
    train = description["parameters"].get("train")
    return isinstance(train, Mapping) and bool(train.get("resume"))


def _pipeline(description: Mapping[str, Any]) -> Pipeline:
    combined = Pipeline([])
    for name in description["pipelines"] or ["__default__"]:
        combined += pipelines[name]
    return combined.filter(**description["selection"])


def _made(
    description: Mapping[str, Any],
    parameters: Mapping[str, Any],
    pipeline: Pipeline,
    project: Path,
    ran: list[str],
) -> set[str]:
    """Datasets that are written again: those of stages that the run executed, and of those that stand no longer."""
    with KedroSession.create(
        project, env=description["env"], runtime_params={**parameters, "force": False}
    ) as session:
        catalog = session.load_context().catalog
        plan = plan_for(pipeline, catalog)
    made: set[str] = set()
    for entry in plan:
        if entry.node.name in ran or entry.runs:
            made |= set(entry.node.outputs)
            made |= {
                n
                for n in entry.node.inputs
                if n in catalog and isinstance(catalog.get(n), CheckpointsDataset)
            }
    return made


def _compare(
    reproduction: Reproduction,
    run_id: str,
    pipeline: Pipeline,
    new: DataCatalog,
    standing: DataCatalog,
    made: set[str],
    settings: TrackingSettings,
    root: Path,
) -> Comparison:
    if not run_id or run_id.startswith(LOCAL_PREFIX):
        raise ReproductionError(
            "it was made again, but MLflow does not have the new run yet, so that nothing can be compared",
            where=f"run {reproduction.run_id}",
            remedy="Make MLflow answer, and reproduce it once more.",
        )
    client = mlflow.MlflowClient()
    client.set_tag(run_id, REPRODUCES, reproduction.run_id)
    before, after = _series(client, reproduction.run_id), _series(client, run_id)
    owners = _owners(pipeline, new, settings)
    trainers = [n.name for n in pipeline.nodes if "checkpoints" in n.inputs]
    shared = [name for name in before if name in after]
    compared = Counter(owners.get(name, trainers[0] if trainers else _TRAINING) for name in shared)
    same, other = _bytes(reproduction, pipeline, new, standing, made)
    return Comparison(
        run_id,
        dict(compared),
        {name: (before[name][-1][1], after[name][-1][1]) for name in shared if before[name] != after[name]},
        tuple(name for name in before if name not in after),
        same,
        other,
        root,
    )


def _series(client: mlflow.MlflowClient, run_id: str) -> dict[str, Series]:
    """Values of each metric that is no measurement, by step; of a value that was told twice, the last."""
    names = sorted(n for n in client.get_run(run_id).data.metrics if not n.startswith(_MEASURED))
    return {
        name: sorted({m.step: m.value for m in client.get_metric_history(run_id, name)}.items())
        for name in names
    }


def _owners(pipeline: Pipeline, catalog: DataCatalog, settings: TrackingSettings) -> dict[str, str]:
    """The node that made each metric that comes from a dataset."""
    makers = {name: node.name for node in pipeline.nodes for name in node.outputs}
    return {
        key: makers[name]
        for name in settings.metrics
        if name in makers and name in catalog and catalog.exists(name)
        for key in catalog.load(name)
    }


def _bytes(
    reproduction: Reproduction,
    pipeline: Pipeline,
    new: DataCatalog,
    standing: DataCatalog,
    made: set[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare outputs that stand with those made again, where they are of the same fingerprint."""
    fingerprints = {
        name: digest
        for node in reproduction.description["nodes"].values()
        for name, digest in node["outputs"].items()
    }
    same, other = [], []
    for name in sorted(made & set(pipeline.all_outputs())):
        paths = [output_path(catalog.get(name)) for catalog in (standing, new)]
        records = [read_record(path) if path is not None and path.exists() else None for path in paths]
        if None in records or records[0].fingerprint != fingerprints.get(name):
            continue
        sums = [{file: digest for file, (_, digest) in record.files.items()} for record in records]
        (same if sums[0] == sums[1] else other).append(name)
    return tuple(same), tuple(other)
