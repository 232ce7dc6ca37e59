"""Kedro hooks: parameters are checked first, Dask is set up, and every run is recorded in MLflow."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import dask
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from mlflow.entities import Run

from weathermill.cases import require_case, unread_local_files
from weathermill.configuration import check_configuration
from weathermill.datasets import CheckpointsDataset, ForecasterDataset
from weathermill.errors import TrackingError
from weathermill.faults import known_error, note_node
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.plan import output_path
from weathermill.incremental.records import read_record
from weathermill.incremental.relocation import is_relocated
from weathermill.parameters import Parameters, validate_parameters
from weathermill.redaction import hide_credentials, hide_named, redact
from weathermill.terminal import print_in_any_locale
from weathermill.tracking import runs
from weathermill.tracking.answers import Answer, explain
from weathermill.tracking.delivery import send_left_overs
from weathermill.tracking.environment import current_settings
from weathermill.tracking.pending import FOLDER, LOCAL_PREFIX, synced_runs
from weathermill.tracking.reproduction import DESCRIPTION, command_of, description_of
from weathermill.tracking.settings import TrackingSettings
from weathermill.tracking.tracker import MLflowTracker

logger = logging.getLogger(__name__)


def _configuration(context: KedroContext, name: str) -> dict[str, Any]:
    try:
        return dict(context.config_loader[name])
    except (KeyError, MissingConfigException):
        return {}


class ParametersHook:
    """Checks the configuration as soon as the project is loaded, so that all faults are told before any work."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check the whole configuration; see that no credential is ever printed.

        Raises
        ------
        ConfigurationError
            If the environment is ``base``, which is no case, or files cannot be read.
        ParameterError
            With all faults of the configuration.
        """
        require_case(context.config_loader)
        if note := unread_local_files(context.config_loader):
            logger.info(note)
        hide_named(os.environ)
        # What cannot be read is told below.
        with contextlib.suppress(Exception):
            hide_credentials(_configuration(context, "credentials"))
            hide_named(_configuration(context, "catalog"))
        check_configuration(context)


class DaskHook:
    """Sets the Dask scheduler from ``dask.yml``: threads by default, a local cluster where asked for."""

    def __init__(self) -> None:
        self._settings: dict[str, Any] = {}
        self._client: Any = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read ``dask.yml``."""
        self._settings = _configuration(context, "dask")

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Set the scheduler, or start the cluster if a node is tagged for Dask."""
        cluster = self._settings.get("cluster")
        # A cluster whose workers are all gone would be waited for without end.
        defaults = {"scheduler": "threads", "distributed.scheduler.no-workers-timeout": "60s"}
        dask.config.set({**defaults, **(self._settings.get("config") or {})})
        if cluster and any("dask" in node.tags for node in pipeline.nodes):
            logging.getLogger("distributed").setLevel(logging.WARNING)
            from distributed import Client, LocalCluster

            self._client = Client(LocalCluster(**cluster))
            dask.config.set({"scheduler": None})
            logger.info("Dask cluster: %s", self._client.dashboard_link)

    def interrupted(self) -> None:
        """Close the cluster."""
        self._close()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client.cluster.close()
            self._client = None

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Close the cluster."""
        self._close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the cluster."""
        self._close()


class MLflowHook:
    """One MLflow run for each ``kedro run``: parameters, metrics, artefacts, model and lineage.

    Parameters
    ----------
    incremental
        The hook that knows the plan of the run.
    """

    def __init__(self, incremental: IncrementalHook | None = None) -> None:
        self._incremental = incremental
        self._settings = TrackingSettings(enabled=False)
        self._project = Path.cwd()
        self._parameters: Parameters | None = None
        self._raw_parameters: dict[str, Any] = {}
        self._environment = ""
        self._catalog: DataCatalog | None = None
        self._tracker: MLflowTracker | None = None
        self._logged_inputs: set[str] = set()
        self._run: Run | None = None
        self._status = ""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read ``mlflow.yml`` and the parameters."""
        self._project = Path(context.project_path)
        self._environment = context.config_loader.environment
        self._settings = current_settings(_configuration(context, "mlflow"))
        if is_relocated() and self._settings.run_id is not None:
            # In the run that MLFLOW_RUN_ID names, which may be the first one, the two could not be compared.
            logger.info("MLFLOW_RUN_ID is not heeded: what is made again is a run of its own")
            self._settings = self._settings.model_copy(update={"run_id": None})
        self._raw_parameters = dict(context.config_loader["parameters"])
        self._parameters = validate_parameters(self._raw_parameters)

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Start the run, or go on with the one whose training is resumed; without the server, if need be."""
        self._catalog, self._logged_inputs, self._run, self._status = catalog, set(), None, ""
        self._run_params = run_params
        if not self._settings.enabled or not pipeline.nodes:
            return
        names = run_params.get("pipeline_names") or ["__default__"]
        env = self._environment
        pipelines = "+".join("all" if name == "__default__" else name for name in names)
        plan = self._incremental.plan if self._incremental is not None else []
        training = self._training(pipeline)
        tags = {
            "pipelines": pipelines,
            "env": env,
            "kedro.run_id": str(run_params.get("run_id", "")),
            "mlflow.source.name": redact(command_of(run_params)),
            "mlflow.source.type": "PROJECT",
            "stages.run": " ".join(entry.node.name for entry in plan if entry.runs)[:5000],
            **({runs.TRAINING: training} if training else {}),
            **runs.process_tags(),
            **runs.git_state(self._project),
        }
        # Before the run begins, so that a signal finds someone to close it.
        atexit.register(self._end, "KILLED")
        self._tracker = self._begin(f"{pipelines} {env}", tags, self._run_to_continue() if training else None)
        tracker = self._tracker
        tracker.make_current()
        tracker.log_params(dict(runs.flatten(self._raw_parameters)))
        tracker.log_dict(runs.software_versions(), "software.json")
        tracker.log_dict(description_of(run_params, self._raw_parameters, plan), DESCRIPTION)
        self._log_upstream(pipeline)

    def _tell_what_was_left_out(self) -> None:
        """Correct what was said of nodes that turned out to stand, once what they are made of had been made again."""
        plan = self._incremental.plan if self._incremental is not None else []
        if self._tracker is None or not any(entry.unless_equal and not entry.runs for entry in plan):
            return
        ran = " ".join(entry.node.name for entry in plan if entry.runs)
        self._tracker.set_tags({"stages.run": ran[:5000]})
        self._tracker.log_dict(description_of(self._run_params, self._raw_parameters, plan), DESCRIPTION)

    def _begin(self, name: str, tags: dict[str, str], continue_run: str | None) -> MLflowTracker:
        """Begin a run in MLflow; locally where that cannot be now, because no work may wait for it.

        Raises
        ------
        TrackingError
            If the configuration names something that can never be recorded to.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                experiment_id = runs.connect(self._settings, self._project)
            send_left_overs(self._settings, self._project)
            runs.close_abandoned(experiment_id)
            if self._settings.run_id is not None:
                self._run = run = runs.attach(self._settings.run_id, tags)
            else:
                continue_run = synced_runs(self._project).get(continue_run, continue_run)
                self._run = run = runs.start(experiment_id, name=name, tags=tags, continue_run=continue_run)
            self._tracker = MLflowTracker(run.info.run_id, project=self._project, settings=self._settings)
            logger.info("MLflow run %s (%s)", run.info.run_name, run.info.run_id)
            return self._tracker
        except TrackingError:
            raise
        except Exception as error:
            answer = explain(error)
            logger.warning(answer.text(f"the run is kept in {self._project / FOLDER} and told later"))
            return self._begin_locally(name, tags, continue_run, answer)

    def _begin_locally(
        self, name: str, tags: dict[str, str], continue_run: str | None, reason: Answer
    ) -> MLflowTracker:
        known = self._settings.run_id or continue_run
        if known is not None and (known == self._settings.run_id or known.startswith(LOCAL_PREFIX)):
            return MLflowTracker(known, project=self._project, settings=self._settings)
        return MLflowTracker.begin_locally(
            self._settings, self._project, name=name, tags=tags, continue_run=continue_run, reason=reason
        )

    def _training(self, pipeline: Pipeline) -> str:
        """Fingerprint of what this run will train, or nothing where it will not."""
        trains = {node.name for node in pipeline.nodes if "checkpoints" in node.inputs}
        for entry in self._incremental.plan if self._incremental is not None else []:
            if entry.runs and entry.node.name in trains:
                return next(iter(entry.fingerprints.values()))
        return ""

    def _run_to_continue(self) -> str | None:
        """The run that a resumed training began in; whether it is the same training is seen there."""
        if self._parameters is None or not self._parameters.train.resume or self._catalog is None:
            return None
        checkpoints = self._catalog["checkpoints"]
        run_id = checkpoints.run_id() if isinstance(checkpoints, CheckpointsDataset) else None
        return synced_runs(self._project).get(run_id, run_id) if run_id is not None else None

    def _log_upstream(self, pipeline: Pipeline) -> None:
        """Link the runs that made what this one reads, or what it finds standing."""
        if self._tracker is None or self._catalog is None:
            return
        standing = {
            name
            for entry in (self._incremental.plan if self._incremental is not None else [])
            if not entry.runs
            for name in entry.node.outputs
        }
        tags = {}
        for name in sorted(pipeline.inputs() | standing):
            path = output_path(self._catalog[name]) if name in self._catalog else None
            record = read_record(path) if path is not None else None
            if record is not None and record.run_id:
                run_id = synced_runs(self._project).get(record.run_id, record.run_id)
                if run_id != self._tracker.run_id:
                    tags[f"upstream.{name}.run_id"] = run_id
        if tags:
            self._tracker.set_tags(tags)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Record what the run read."""
        self._log_lineage(dataset_name, data, "read")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record what the run made."""
        if self._tracker is None or self._catalog is None:
            return
        self._log_lineage(dataset_name, data, "made")
        if dataset_name in self._settings.metrics:
            self._tracker.log_metrics(
                {key: value for key, value in data.items() if isinstance(value, int | float)}
            )
        if dataset_name in self._settings.artifacts:
            path = getattr(self._catalog[dataset_name], "path", None) or self._catalog[dataset_name]._filepath
            self._tracker.log_artifact(Path(path), self._settings.artifacts[dataset_name] or None)
        if dataset_name == "summary":
            self._tracker.set_tags({"mlflow.note.content": f"```\n{data}\n```"})
        dataset = self._catalog[dataset_name]
        if dataset_name == self._settings.model and isinstance(dataset, ForecasterDataset):
            self._tracker.log_model(
                dataset.path,
                registered_model_name=self._settings.registered_model_name,
                alias=self._settings.alias,
            )

    def _log_lineage(self, name: str, data: Any, context: str) -> None:
        if self._tracker is None or name not in self._settings.lineage or name in self._logged_inputs:
            return
        entries = self._describe(name, data)
        if not entries:
            return
        self._logged_inputs.add(name)
        for entry in entries:
            self._tracker.log_input(context=context, **entry)

    def _describe(self, name: str, data: Any) -> list[dict[str, str]]:
        """Name, place and digest of a catalog entry: as it says itself, or as its record says."""
        dataset = self._catalog[name]
        if hasattr(dataset, "lineage"):
            return dataset.lineage(data)
        path = output_path(dataset)
        record = read_record(path) if path is not None else None
        return [{"name": name, "source": str(path), "digest": record.fingerprint}] if record else []

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Close the run as FINISHED and print the summary of an evaluation."""
        self._tell_what_was_left_out()
        self._end("FINISHED")
        if "summary" in pipeline.all_outputs():
            print_in_any_locale()
            sys.stdout.write(f"\n{catalog.load('summary').rstrip()}\n\n{self._where_to_look()}\n")

    def _where_to_look(self) -> str:
        links = {}
        for label, name in (("Figures", "figures"), ("Model card", "model_card"), ("Forecast", "forecast")):
            path = output_path(self._catalog[name]) if self._catalog and name in self._catalog else None
            if path is not None and path.exists():
                links[label] = os.path.relpath(path)
        if self._settings.enabled:
            links["MLflow"] = f"make ui, then {self._page()}"
        return "\n".join(f"{label + ':':<12}{target}" for label, target in links.items())

    def _page(self) -> str:
        """Where the run is in MLflow's pages, in their view for trained models."""
        page = (
            f"/#/experiments/{self._run.info.experiment_id}/runs/{self._run.info.run_id}" if self._run else ""
        )
        return f"http://127.0.0.1:5000{page}?workflowType=machine_learning"

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Note in which node it was."""
        note_node(error, node.name)

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Close the run as FAILED, with the reason as a tag."""
        if self._tracker is not None:
            self._tracker.set_tags({"error": str(known_error(error) or error)[:4000]})
        self._end("FAILED")

    def _end(self, status: str) -> None:
        # A signal may interrupt this, too; whoever comes then, at the process's exit, ends what was begun here.
        self._status = self._status or status
        if self._tracker is not None:
            self._tracker.end(self._status)
            self._tracker = None
        atexit.unregister(self._end)

    def interrupted(self) -> None:
        """Close the run as KILLED, while all of Python is still there: at its exit no threads can be begun."""
        self._end("KILLED")
