"""A dry run lists what the run does, and a part of the pipelines runs with what it needs, or not at all."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.hooks import hook_impl
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import ParallelRunner, ThreadRunner

from weathermill.cli import run
from weathermill.errors import ConfigurationError
from weathermill.faults import VARIABLE
from weathermill.hooks import DaskHook
from weathermill.incremental import runner as runner_module
from weathermill.incremental.needs import Needs
from weathermill.incremental.runner import runner_class
from weathermill.incremental.selection import Selection
from weathermill.incremental.status import planned

SOURCE = Path(__file__).resolve().parents[2]
#: Stores that stand in the project below, though nothing is known of how they were made.
STANDING = {
    "fields": "02_intermediate/sample/fields.zarr",
    "regridded": "03_primary/sample/regridded.zarr",
    "regrid_weights": "03_primary/sample/regrid_weights.nc",
    "statistics": "04_feature/sample/statistics.nc",
    "tensors": "05_model_input/sample/tensors",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The configuration and the sample; no record in MLflow, no estimates of what stages take."""
    path = tmp_path_factory.mktemp("selection") / "project"
    shutil.copytree(SOURCE / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
    (path / "conf" / "sample" / "mlflow.yml").write_text("enabled: false\n")
    shutil.copytree(path / "conf", path / "elsewhere")
    (path / "elsewhere" / "sample").rename(path / "elsewhere" / "other")
    with (path / "elsewhere" / "other" / "parameters.yml").open("a") as file:
        file.write("\nforce: inspect\n")
    (path / "src").mkdir()
    (path / "data" / "01_raw").mkdir(parents=True)
    (path / "data" / "01_raw" / "speedy_t21_sample.nc").symlink_to(
        SOURCE / "data" / "01_raw" / "speedy_t21_sample.nc"
    )
    shutil.copy(SOURCE / "pyproject.toml", path)
    for name in STANDING.values():
        (path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "data" / name).touch()
    return path


@pytest.fixture
def executed(project, monkeypatch):
    """The project, and the names of the nodes that runs have come to execute; nothing is executed."""
    monkeypatch.chdir(project)
    monkeypatch.delenv(VARIABLE, raising=False)
    bootstrap_project(project)
    names = []

    def own_run(self, pipeline, *args, only_missing_outputs=False, **kwargs):
        assert not only_missing_outputs
        names.append([node.name for node in pipeline.nodes])
        return {}

    monkeypatch.setattr(runner_module, "_kedros_own_run", lambda: own_run)
    for module in ("hook", "status"):
        monkeypatch.setattr(f"weathermill.incremental.{module}.needs_of", lambda *_: Needs())
    return names


def invoke(*words):
    result = CliRunner().invoke(run, list(words), catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def names(plan):
    return [entry.node.name for entry in plan if entry.runs]


COMMANDS = {
    "--nodes=ingest,choose_target_grid --params=force=inspect": {"inspect", "ingest", "choose_target_grid"},
    "--pipelines=ingest,regrid --only-missing-outputs --runner=SequentialRunner": {
        "inspect",
        "render_inspection",
        "report_regridding",
        "judge_regridding",
    },
    "--tags=dask --to-outputs=fields --conf-source=elsewhere --env=other": {"inspect", "ingest"},
}


@pytest.mark.parametrize("words", COMMANDS)
def test_a_dry_run_lists_what_the_run_does(executed, words):
    dry = invoke("--dry-run", *words.split())
    assert dry.exit_code == 0, dry.output
    assert executed == []
    listed = dict(re.findall(r"^run +(\w+): (.*)", dry.output, re.MULTILINE))
    assert listed.keys() == COMMANDS[words]
    real = invoke(*words.split())
    assert real.exit_code == 0, real.output
    assert [sorted(listed)] == [sorted(names) for names in executed]
    if "force=inspect" in words or "elsewhere" in words:
        assert listed["inspect"] == "forced"


@pytest.fixture(scope="module")
def context(project):
    bootstrap_project(project)
    with KedroSession.create(project) as session:
        return session.load_context()


SELECTIONS = [
    ({"node_names": ["write_tensors"]}, ["normalise", "write_tensors"]),
    ({"node_names": ["inspect"]}, ["inspect"]),
    ({"from_nodes": ["write_tensors"], "to_nodes": ["train"]}, ["normalise", "write_tensors", "train"]),
    ({"pipeline_names": ["normalise"]}, ["compute_statistics"]),
    ({"pipeline_names": ["normalise"], "to_outputs": ["normalised"]}, ["compute_statistics", "normalise"]),
    ({"from_inputs": ["normalised"], "to_outputs": ["tensors"]}, ["normalise", "write_tensors"]),
    ({"to_outputs": ["target_grid"], "from_nodes": ["choose_target_grid"]}, ["choose_target_grid"]),
    ({"pipeline_names": ["train"], "only_missing_outputs": True}, ["train"]),
    ({"pipeline_names": ["tensors"], "only_missing_outputs": True}, []),
]


@pytest.mark.parametrize(("given", "expected"), SELECTIONS)
def test_nodes_that_make_what_is_needed_in_memory_run_too(context, given, expected):
    plan, _ = planned(context, Selection.of(given))
    assert names(plan) == expected


def test_what_does_not_exist_and_is_not_made_is_refused_with_the_node_that_makes_it(executed, project):
    result = invoke("--nodes=evaluate,summarise")
    assert result.exit_code == 1 and executed == []
    said = " ".join(result.output.split())
    model = project / "data" / "06_models" / "sample" / "model"
    assert (
        "WM101 evaluate reads model, which does not exist and which no node of this run makes "
        f"[{model}] -> Make it first: `kedro run --to-nodes=train`"
    ) in said
    assert not list(project.rglob("*.lock"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--nodes=ingets", "there is no node 'ingets'"),
        ("--to-outputs=fielsd", "there is no dataset 'fielsd'"),
        ("--tags=dsak", "there is no tag 'dsak'; there are dask"),
        ("--nodes=ingest --tags=dask --from-nodes=train", "no node passes all of these filters"),
        ("--runner=SequentialRuner", "there is no runner 'SequentialRuner'"),
        ("--runner=ParallelRunner", "ParallelRunner runs nodes in copies of this process"),
        ("--runner=ThreadRunner", "ThreadRunner runs nodes beside each other"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(executed, monkeypatch, words, said):
    monkeypatch.setattr(ParallelRunner, "__init__", lambda *_, **__: pytest.fail("a process was started"))
    for more in ([], ["--dry-run"]):
        result = invoke(*words.split(), *more)
        assert result.exit_code == 1 and said in result.output, result.output
        assert " -> " in result.output
    assert executed == []


@pytest.mark.parametrize("kind", [ThreadRunner, ParallelRunner])
def test_a_script_cannot_take_a_runner_that_runs_nodes_beside_each_other(executed, project, kind):
    runner = kind()
    assert runner_class(str(runner)) is kind
    with KedroSession.create(project) as session, pytest.raises(ConfigurationError, match=kind.__name__):
        session.run(node_names=["ingest"], runner=runner)
    assert executed == []
    assert not list(project.rglob("*.lock"))


def test_locks_are_let_go_of_when_a_later_hook_refuses_the_run(executed, project, monkeypatch):
    monkeypatch.setattr(DaskHook, "before_pipeline_run", hook_impl(lambda self: 1 / 0))
    bootstrap_project(project)
    with KedroSession.create(project) as session, pytest.raises(ZeroDivisionError):
        session.run(node_names=["ingest"])
    assert executed == []
    assert not list(project.rglob("*.lock"))
