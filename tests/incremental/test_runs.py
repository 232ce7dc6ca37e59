"""Real runs of the prepare stages: skipping, records, two at once, two environments, damage, secrets, reproduction."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import xarray as xr
import yaml

SOURCE = Path(__file__).resolve().parents[2]
KEDRO = str(Path(sys.executable).with_name("kedro"))
WEATHERMILL = str(Path(sys.executable).with_name("weathermill"))
SECRET = "pl4nted-s3cret"


@pytest.fixture(scope="module")
def make_project():
    path = SOURCE / "scripts" / "crashes" / "project.py"
    spec = importlib.util.spec_from_file_location("crashes_project", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["crashes_project"] = module
    spec.loader.exec_module(module)
    return module.Project


@pytest.fixture
def project(tmp_path, make_project, made_database):
    project = make_project(tmp_path / "project", steps=24)
    shutil.copy(made_database, project.path / "mlflow.db")
    return project


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, make_project):
    """A project that has run `prepare` once; tests must leave it as they found it."""
    project = make_project(tmp_path_factory.mktemp("prepared") / "project", steps=24)
    result = command(project, KEDRO, "run", "--pipelines=prepare")
    assert result.returncode == 0, result.stderr
    return project


def environment():
    return {**os.environ, "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}


def command(project, *words):
    return subprocess.run(
        words, cwd=project.path, env=environment(), capture_output=True, text=True, timeout=200
    )


def start(project, *words):
    return subprocess.Popen(
        words,
        cwd=project.path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A suite in the background of a shell inherits ignored signals, which a run rightly goes on ignoring.
        preexec_fn=_hear_signals,
    )


def _hear_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def all_runs(project):
    mlflow.set_tracking_uri(f"sqlite:///{project.path / 'mlflow.db'}")
    return mlflow.search_runs(experiment_names=["weathermill"], output_format="list", order_by=["start_time"])


def test_a_dry_run_says_what_would_run_and_why_and_does_nothing(prepared):
    before = prepared.results()
    result = command(prepared, KEDRO, "run", "--dry-run", "--params", "regrid.target=9x18")
    assert result.returncode == 0, result.stderr
    assert re.search(r"skip +ingest: unchanged, made \d+ \w+ ago", result.stdout), result.stdout
    assert re.search(r"run +regrid: changed: .*params:regrid", result.stdout)
    assert re.search(r"run +train: ", result.stdout)
    assert prepared.results() == before


def test_status_shows_what_stands_and_what_is_to_be_made(prepared):
    result = command(prepared, WEATHERMILL, "status")
    assert result.returncode == 0, result.stderr
    rows = {
        line.split("┃")[0].split("│")[2].strip(): line
        for line in result.stdout.splitlines()
        if line.count("│") > 4
    }
    (run,) = all_runs(prepared)
    assert "stands" in rows["tensors"] and run.info.run_id[:8] in rows["tensors"]
    assert "MiB" in rows["tensors"]
    assert "to be made" in rows["model"]


def test_what_the_stages_took_is_logged(prepared):
    (run,) = all_runs(prepared)
    assert 0.05 < run.data.metrics["stage/ingest/peak_memory_gib"] < 4
    assert run.data.metrics["stage/write_tensors/seconds"] > 0


def test_damage_of_every_kind_is_found_and_named(prepared):
    result = command(prepared, WEATHERMILL, "verify")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^intact +tensors", result.stdout, re.MULTILINE)
    store = prepared.data / "03_primary" / "sample" / "regridded.zarr"
    shard = prepared.data / "05_model_input" / "sample" / "tensors" / "shards" / "00000.safetensors"
    chunks = sorted(p for p in store.rglob("c/*/*/*") if p.is_file())
    whole = {path: path.read_bytes() for path in (*chunks[:2], shard)}

    def verdict(*words):
        result = command(prepared, WEATHERMILL, "verify", *words)
        return result.returncode, result.stdout + result.stderr

    flipped = bytearray(whole[chunks[0]])
    flipped[len(flipped) // 2] ^= 1
    chunks[0].write_bytes(flipped)
    shard.write_bytes(whole[shard][:-8])
    try:
        code, text = verdict("--quick")
        assert code == 1 and "shards/00000.safetensors is truncated" in text
        assert "2 of" not in text
        code, text = verdict()
        assert code == 1
        assert f"{chunks[0].relative_to(store)} is changed" in text
        assert "2 of" in text and "regridded" in text
    finally:
        for path, data in whole.items():
            path.write_bytes(data)
    assert verdict()[0] == 0


@pytest.mark.slow
def test_a_run_can_be_made_again_unless_its_sources_have_changed(prepared):
    first = all_runs(prepared)[0]
    result = command(prepared, WEATHERMILL, "reproduce", first.info.run_id)
    assert result.returncode == 0, result.stderr
    assert "command:    kedro run --pipelines=prepare" in result.stdout
    assert "regrid.target = 11x20_poles" in result.stdout
    before = prepared.results()
    # Were it recorded to the run that the environment names, that would be compared with itself.
    same = f"MLFLOW_RUN_ID={first.info.run_id}"
    result = command(prepared, "env", same, WEATHERMILL, "reproduce", first.info.run_id, "--run")
    assert result.returncode == 0, result.stderr
    assert re.search(r"(\d+) of \1 metrics are equal at every step \(judge_regridding \1\)", result.stdout)
    assert "outputs with the same bytes: fields" in result.stdout
    assert prepared.results() == before
    second = all_runs(prepared)[-1]
    assert second.info.run_id != first.info.run_id
    assert second.info.run_id in result.stdout and "write_tensors" in second.data.tags["stages.run"]
    raw = prepared.data / "01_raw" / "speedy_t21_sample.nc"
    status = raw.stat()
    os.utime(raw, (1, 1))
    try:
        result = command(prepared, WEATHERMILL, "reproduce", first.info.run_id, "--run")
        assert result.returncode == 1 and "sources have changed since: raw_fields" in result.stderr
    finally:
        os.utime(raw, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = command(prepared, WEATHERMILL, "reproduce", "0" * 32)
    assert result.returncode == 1 and f"there is no MLflow run '{'0' * 32}'" in result.stderr


def test_a_later_run_is_linked_to_those_that_made_what_it_reads(prepared):
    made_by = {run.info.run_id for run in all_runs(prepared)}
    result = command(prepared, KEDRO, "run", "--pipelines=tensors", "--params", "force=tensors")
    assert result.returncode == 0, result.stderr
    run = all_runs(prepared)[-1]
    assert run.info.run_id not in made_by
    assert run.data.tags["upstream.statistics.run_id"] in made_by
    assert run.data.tags["upstream.regridded.run_id"] in made_by
    names = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
    assert {"statistics", "regridded", "tensors"} <= set(names)


def test_two_runs_at_once_do_each_what_one_alone_would(tmp_path):
    """Of one environment, and of two."""
    script = Path(__file__).with_name("two_at_once.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "project")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    for outcome in outcomes:
        assert set(outcome["states"]) == {0}, outcome["lines"]
        assert not outcome["left"]
        assert set(outcome["runs"]) == {"FINISHED"}
    alone, same, others = (outcome["results"] for outcome in outcomes)
    assert len(alone["sample"]) > 10 and alone["other"] == {}
    assert same == alone
    assert others["sample"] == alone["sample"]
    assert {name.replace("/other/", "/sample/"): digest for name, digest in others["other"].items()} == (
        alone["sample"]
    )
    lines = outcomes[1]["lines"]
    assert sum("write_tensors: skipped" in line for line in lines) == 1, lines
    assert any("in use by process" in line for line in lines), lines


@pytest.mark.slow
def test_an_equal_store_of_another_environment_is_taken_and_stays_whole(prepared):
    other = prepared.path / "conf" / "coarse"
    other.mkdir()
    shutil.copy(prepared.path / "conf" / "sample" / "catalog.yml", other)
    before = {k: v for k, v in prepared.results().items() if "/sample/" in k}
    parameters = yaml.safe_load((prepared.path / "conf" / "sample" / "parameters.yml").read_text())
    parameters["regrid"] = {"target": "9x18"}
    (other / "parameters.yml").write_text(yaml.safe_dump(parameters))
    try:
        result = command(prepared, KEDRO, "run", "--pipelines=ingest,regrid", "--env=coarse")
        assert result.returncode == 0, result.stderr
        assert "fields: taken from" in result.stderr and "ingest: to run" not in result.stderr
        assert "regrid: to run" in result.stderr
        shutil.rmtree(prepared.data / "02_intermediate" / "coarse")
        assert {k: v for k, v in prepared.results().items() if "/sample/" in k} == before
        with xr.open_zarr(prepared.data / "03_primary" / "coarse" / "regridded.zarr") as store:
            assert store.sizes["latitude"] == 9
    finally:
        shutil.rmtree(other)
        for folder in prepared.data.glob("*/coarse"):
            shutil.rmtree(folder)


def test_a_store_in_use_is_refused_where_refusing_is_asked_for(project):
    script = (
        "import sys, time; from pathlib import Path; from weathermill.incremental.locks import StoreLocks\n"
        "StoreLocks().acquire([Path(sys.argv[1])]); print('held', flush=True); time.sleep(100)"
    )
    target = str(project.data / "02_intermediate" / "sample" / "fields.zarr")
    holder = subprocess.Popen([sys.executable, "-c", script, target], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        result = command(project, KEDRO, "run", "--pipelines=ingest", "--params", "locking.busy=refuse")
        assert result.returncode == 1
        assert f"WM502 is in use by process {holder.pid}" in result.stderr
    finally:
        holder.kill()
        holder.wait()
    assert command(project, KEDRO, "run", "--pipelines=ingest").returncode == 0


def test_a_run_without_its_server_completes_and_is_told_later(project):
    settings = project.path / "conf" / "sample" / "mlflow.yml"
    settings.write_text(yaml.safe_dump({"tracking_uri": "http://127.0.0.1:9", "artifact_location": None}))
    result = command(project, KEDRO, "run", "--pipelines=ingest")
    assert result.returncode == 0, result.stderr
    assert "MLflow does not answer" in result.stderr
    settings.write_text("{}")
    result = command(project, WEATHERMILL, "sync")
    assert "1 runs are complete now; 0 still wait" in result.stdout, result.stdout + result.stderr
    (run,) = all_runs(project)
    assert run.info.status == "FINISHED" and run.data.metrics["stage/ingest/seconds"] > 0
    assert {e.dataset.name for e in run.inputs.dataset_inputs} >= {"fields"}
    assert run.data.params["regrid.target"] == "11x20_poles"


def test_no_credential_reaches_anything_that_is_shown_or_stored(project):
    case = project.path / "conf" / "sample"
    (case / "credentials.yml").write_text(yaml.safe_dump({"login": {"token": SECRET}}))
    good = {
        "type": "weathermill.datasets.RawFieldsDataset",
        "filepath": "data/01_raw/speedy_t21_sample.nc",
        "credentials": "login",
    }
    bad = {
        **good,
        "filepath": f"http://me:{SECRET}2@127.0.0.1:9/era5.zarr?token={SECRET}3",
        "load_args": {"storage_options": {"client_kwargs": {"auth": SECRET}}},
    }
    texts = []
    for source, code in ((good, 0), (bad, 1)):
        (case / "catalog.yml").write_text(yaml.safe_dump({"raw_fields": source}))
        for words in ((), ("--params", f"compare.source={SECRET}")):
            result = command(project, KEDRO, "run", "--pipelines=ingest", *words)
            assert result.returncode == code, result.stderr
            texts.append(result.stdout + result.stderr)
    texts.append(command(project, WEATHERMILL, "status").stdout)
    assert "***" in texts[2]
    found = [text for text in texts if SECRET in text]
    assert not found, found[0][-3000:]
    for path in project.path.rglob("*"):
        if path.is_file() and case not in path.parents:
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_hostile_attributes_are_escaped_in_pages(project):
    raw = project.data / "01_raw" / "speedy_t21_sample.nc"
    evil = "<script>alert('x')</script>"
    with xr.open_dataset(raw) as sample:
        sample = sample.load()
    sample.attrs |= {"title": evil, "institution": evil, "history": evil}
    for variable in sample.variables.values():
        variable.attrs["long_name"] = evil
    renamed = raw.with_name(f"{evil.replace('/', '_')}.nc")
    sample.to_netcdf(renamed)
    raw.unlink()
    catalog = {"type": "weathermill.datasets.RawFieldsDataset", "filepath": "data/01_raw/*.nc"}
    (project.path / "conf" / "sample" / "catalog.yml").write_text(yaml.safe_dump({"raw_fields": catalog}))
    result = command(project, KEDRO, "run", "--pipelines=ingest,regrid")
    assert result.returncode == 0, result.stderr
    pages = list(project.data.rglob("*.html"))
    assert len(pages) >= 2
    for page in pages:
        assert "<script>alert" not in page.read_text(), page
    assert any("&lt;script&gt;" in page.read_text() for page in pages)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_is_killed_in_the_record_and_leaves_no_lock(project, number):
    process = start(project, KEDRO, "run", "--pipelines=prepare")
    assert any("MLflow run prepare" in line for line in process.stdout)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert {run.info.status for run in all_runs(project)} == {"KILLED"}
    assert not project.left_overs()
