"""A run that ends early says the exact command that goes on."""

from __future__ import annotations

import signal

import pytest
from click.testing import CliRunner
from kedro.framework.project import settings
from kedro.pipeline import Pipeline

from weathermill import cli
from weathermill.incremental.ending import Progress, going_on
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.selection import Selection
from weathermill.overrides import parse_overrides

TRAINING = Progress(complete=("ingest", "tensors"), left=("train", "evaluate"), stage="train", resumable=True)


def command(text):
    """The command that a message ends with."""
    return text.splitlines()[-1].strip()


def test_a_signal_is_named_with_the_stage_and_what_stands():
    text = going_on({"env": "case", "pipelines": ["train"]}, 128 + signal.SIGHUP, TRAINING)
    assert text.startswith("Stopped by SIGHUP in stage train; what ingest, tensors made stands. To go on:")
    assert command(text) == "kedro run --env=case --pipelines=train --params=train.resume=true"


def test_parameters_and_other_options_are_kept():
    options = {
        "params": parse_overrides("train.epochs=40,ingest.levels=[500,850]"),
        "pipeline": "train",
        "tags": ("a", "b"),
        "conf_source": "other/conf",
        "runner": "ThreadRunner",
        "only_missing_outputs": True,
    }
    said = command(going_on(options, 1, TRAINING))
    for part in (
        "--pipelines=train",
        "--tags=a,b",
        "train.epochs=40",
        "ingest.levels=[500,850]",
        "train.resume=true",
        "--conf-source=other/conf",
        "--runner=ThreadRunner",
        "--only-missing-outputs",
    ):
        assert part in said.replace(" ", "").replace("--", " --"), part
    assert options["params"]["train"] == {"epochs": 40}


def test_a_training_is_resumed_only_where_there_is_a_checkpoint_of_it():
    said = going_on({"params": {}}, 143, Progress(left=("train",), stage="train"))
    assert command(said) == "kedro run"


def test_what_was_forced_and_is_complete_is_not_forced_again():
    progress = Progress(complete=("ingest",), left=("train", "evaluate"), stage="train", forced=("train",))
    assert command(going_on({"params": {"force": True}}, 143, progress)) == "kedro run --params=force=train"


def test_the_environment_of_the_shell_is_put_into_the_command(monkeypatch):
    monkeypatch.setenv("KEDRO_ENV", "europe")
    assert command(going_on({}, 143, TRAINING)).startswith("kedro run --env=europe ")


def test_a_run_that_was_refused_before_its_plan_says_nothing_more():
    assert going_on({}, 1, Progress()) == ""
    assert going_on({"params": {"model": {"boundary": "sphere"}}}, 1, Progress(left=("train",))) == ""
    assert "before the first stage" in going_on({}, 130, Progress())


@pytest.mark.parametrize(
    ("raised", "code", "begins"),
    [
        (KeyboardInterrupt(), 130, "Stopped by SIGINT in stage train"),
        (SystemExit(143), 143, "Stopped by SIGTERM in stage train"),
        (SystemExit(129), 129, "Stopped by SIGHUP in stage train"),
        (ValueError("no"), 1, "When that is mended, this goes on"),
    ],
)
def test_every_ending_of_the_command_says_how_to_go_on(monkeypatch, tmp_path, raised, code, begins):
    class Ended(IncrementalHook):
        def progress(self):
            return TRAINING

    def fail(**options):
        raise raised

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(settings), "HOOKS", (Ended(),), raising=False)
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(Selection, "pipeline", lambda self: Pipeline([]))
    monkeypatch.setattr(cli.kedro_run, "callback", fail)
    # The installed package, where there is no project, has no `kedro run`.
    packaged = CliRunner().invoke(cli.run, ["--params", "train.epochs=3"])
    assert command(packaged.stderr).startswith("python -m weathermill --params=train.epochs=3,")
    monkeypatch.setattr(cli, "is_packaged", lambda: False)
    result = CliRunner().invoke(cli.run, ["--params", "train.epochs=3"])
    assert result.exit_code == code
    assert begins in result.stderr
    assert command(result.stderr).startswith("kedro run --params=train.epochs=3,train.resume=true")
