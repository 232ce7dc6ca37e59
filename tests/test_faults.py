"""What commands show of an error: ours, the configuration's, and surprises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

from weathermill import redaction
from weathermill.cli import main, run
from weathermill.errors import ConfigurationError, MissingLevelError, ResourceError
from weathermill.faults import LOG, VARIABLE, describe, known_error, note_node, require_known
from weathermill.redaction import hide_credentials

SOURCE = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The configuration of the project, in a folder of its own."""
    path = tmp_path / "project"
    shutil.copytree(SOURCE / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
    (path / "conf" / "local").mkdir()
    (path / "src").mkdir()
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(SOURCE / name, path / name)
    monkeypatch.chdir(path)
    monkeypatch.delenv(VARIABLE, raising=False)
    bootstrap_project(path)
    return path


def told(command, *words):
    """What a command that fails prints: a few lines, and no traceback."""
    result = CliRunner().invoke(command, list(words))
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output and len(result.output.splitlines()) <= 8, result.output
    assert "  -> " in result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--env=nowhere"], "WM101 there is no environment 'nowhere'; there are ecmwf_sample,"),
        (["--pipelines=trian"], "WM101 there is no pipeline 'trian'; there are"),
        (["--nodes=trian"], "WM101 there is no node 'trian'; there are"),
        (["--pipelines=train", "--from-nodes=ingest"], "WM101 there is no node 'ingest'; there are train"),
        (["--pipelines=trian", "--dry-run"], "WM101 there is no pipeline 'trian'"),
        (["--to-outputs=nothing"], "WM101 there is no dataset 'nothing'; there are"),
        (["--params=train.epoch=3"], "WM100 1 fault in the parameters: train.epoch: unknown parameter"),
    ],
)
def test_what_kedro_run_is_asked_for_and_there_is_not(project, words, expected):
    assert expected in told(run, *words)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_other_commands_know_their_pipelines_too(project, command):
    assert "WM101 there is no pipeline 'trian'" in told(main, command, "-p", "trian")
    assert "WM101 there is no environment 'nowhere'" in told(main, command, "-e", "nowhere")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("parameters_x.yml", "regrid:\n  target: [1\n", ["parameters_x.yml", "expected ',' or ']'"]),
        (
            "catalog_x.yml",
            "fields:\n  type: weathermill.datasets.Nothing\n  filepath: x\n",
            ["'fields'", "'Nothing'"],
        ),
        (
            "catalog_x.yml",
            "fields:\n  type: weathermill.datasets.NetCDFDataset\n  filepth: x\n",
            ["'fields'", "filepth"],
        ),
        ("parameters_x.yml", "seed: ${nowhere.to_be_found}\n", ["nowhere"]),
    ],
)
def test_malformed_configuration_is_told_with_its_place(project, name, text, expected):
    (project / "conf" / "sample" / name).write_text(text)
    output = told(main, "status")
    assert "ConfigurationError: WM101" in output
    for words in expected:
        assert words in output


def test_a_folder_that_is_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"this folder belongs to no Kedro project [{tmp_path}]" in told(main, "status")


def failing(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_a_surprise_is_told_in_three_lines_and_its_traceback_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redaction, "_secrets", set())
    hide_credentials({"a": {"token": "planted-1"}})
    try:
        require_known(["x"], None, "thing")
    except TypeError as error:
        note_node(error, "regrid")
        text = describe(error)
    assert text.startswith("TypeError: ") and "[faults.py, line " in text
    assert len(text.splitlines()) == 3 and "in node regrid" in text
    kept = (tmp_path / LOG).read_text()
    assert "Traceback" in kept and "require_known" in kept
    describe(failing(RuntimeError("with planted-1")))
    assert "with ***" in (tmp_path / LOG).read_text()
    assert "planted-1" not in (tmp_path / LOG).read_text()


def test_the_traceback_is_shown_where_asked_for(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    text = describe(failing(MissingLevelError("no level 50 hPa", where="a.nc")))
    assert "Traceback" in text and text.endswith("offered, or add the file that holds it.")


def test_errors_of_others_are_not_taken_for_faults_of_the_configuration():
    assert known_error(failing(ValueError("operands could not be broadcast"))) is None
    assert isinstance(known_error(failing(ConfigurationError("x"))), ConfigurationError)


@pytest.mark.parametrize("kind", ["NoValidWorkerError", "NoWorkerError"])
def test_a_cluster_that_lost_its_workers_is_told(kind):
    scheduler = pytest.importorskip("distributed.scheduler")
    facts = {"NoValidWorkerError": ("sum-1", set(), set(), {}, 60.0), "NoWorkerError": ("sum-1", 60.0)}[kind]
    if not hasattr(scheduler, kind):
        pytest.skip("this version has none")
    lost = getattr(scheduler, kind)(*facts)
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = lost
    known = known_error(wrapped)
    assert isinstance(known, ResourceError)
    assert "workers of the Dask cluster died" in str(known) and "dask.yml" in str(known)


def test_unknown_options_of_storage_are_told(monkeypatch):
    pytest.importorskip("s3fs")
    from weathermill.fields.opening import open_sources

    with pytest.raises(TypeError) as caught:
        open_sources("s3://bucket/a.nc", storage_options={"client_kwargs": {"tokn": "x"}, "anon": True})
    error = known_error(caught.value)
    assert isinstance(error, ConfigurationError)
    assert "tokn" in str(error) and "storage_options" in error.remedy
