"""The logged model is registered, loads without pickles, and answers over HTTP; what does not fit gets a 4xx."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import uvicorn
import xarray as xr
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from weathermill.errors import ParameterError
from weathermill.forecasting.payloads import to_dataset
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tracking import model as models
from weathermill.tracking import registry, runs
from weathermill.tracking.settings import TrackingSettings, tracking_settings

NAMES, UNITS = ["temperature_500", "2m_temperature"], ["K", "K"]
HEIGHT, WIDTH = 8, 12
NAME = "weathermill-sample"


def network(seed):
    torch.manual_seed(seed)
    return Forecaster(
        ModelConfig(base_channels=4, depth=1, norm="none"),
        ChannelTable(
            [
                Channel("temperature_500", "temperature", 500.0, "prognostic", "K"),
                Channel("2m_temperature", "2m_temperature", None, "prognostic", "K"),
            ]
        ),
        np.linspace(78.75, -78.75, HEIGHT),
        np.arange(WIDTH) * 30.0,
        np.array([253.0, 288.0]),
        np.array([11.0, 21.0]),
        np.array([2.0, 3.0]),
    ).eval()


@pytest.fixture(scope="module")
def logged(tmp_path_factory, made_database):
    """A store with two registered versions; the alias points to the second."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(made_database, folder / "runs.db")
    before = mlflow.get_tracking_uri()
    settings = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")
    experiment = runs.connect(settings, folder)
    for version in (1, 2):
        network(version).save(folder / "model")
        example = np.broadcast_to(
            np.array([253, 288], np.float32)[:, None, None], (1, 2, HEIGHT, WIDTH)
        ).copy()
        with mlflow.start_run(experiment_id=experiment) as run:
            model_id = models.log_model(
                folder / "model",
                n_input=2,
                n_output=2,
                grid_shape=(HEIGHT, WIDTH),
                example=example if version == 1 else None,
            )
        client = mlflow.MlflowClient()
        registry.register(client, run.info.run_id, model_id, NAME, trained=version)
        registry.point_alias(client, run.info.run_id, model_id, NAME, "newest")
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def states():
    rng = np.random.default_rng(0)
    return (np.array([253.0, 288.0])[:, None, None] + rng.normal(size=(1, 2, HEIGHT, WIDTH))).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def address(logged):
    """MLflow's own scoring server in a thread of this process."""
    app = scoring_server.init(mlflow.pyfunc.load_model("models:/weathermill-sample@newest"))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def ask(address, payload):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    request = urllib.request.Request(f"{address}/invocations", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_newest_version_has_the_alias(logged):
    client = mlflow.MlflowClient()
    assert client.get_model_version_by_alias(NAME, "newest").version in (2, "2")
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2


def test_nothing_is_pickled_and_the_model_says_what_it_takes(logged):
    folder = Path(mlflow.artifacts.download_artifacts("models:/weathermill-sample@newest"))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    described = mlflow.models.get_model_info("models:/weathermill-sample@newest").metadata
    assert described["channel"] == NAMES and described["units"] == UNITS
    assert described["time_step_hours"] == 6 and len(described["latitude"]) == HEIGHT


def test_pyfunc_gives_what_the_network_gives(logged, states):
    loaded = mlflow.pyfunc.load_model("models:/weathermill-sample@newest")
    out = loaded.predict(states, params={"lead_time_hours": 18.0})
    expected = np.stack(list(network(2).rollout_physical(states, 3)), axis=1)
    np.testing.assert_allclose(out["forecast"], expected, rtol=1e-5)
    assert out["lead_time_hours"] == [6, 12, 18]


def test_http_answers_with_lead_times(address, states):
    status, plain = ask(address, {"inputs": states.tolist(), "params": {"steps": 2}})
    assert status == 200
    assert plain["lead_time_hours"] == [6, 12] and plain["channel"] == NAMES and plain["units"] == UNITS
    assert np.shape(plain["forecast"]) == (1, 2, 2, HEIGHT, WIDTH)
    celsius = states[:, ::-1, ::-1] - 273.15
    coordinates = {
        "channel": NAMES[::-1],
        "units": ["degC", "degC"],
        "latitude": np.linspace(-78.75, 78.75, HEIGHT).tolist(),
        "longitude": (np.arange(WIDTH) * 30.0).tolist(),
        "lead_time_hours": 12,
    }
    status, labelled = ask(address, {"inputs": celsius.tolist(), "params": coordinates})
    assert status == 200
    np.testing.assert_allclose(labelled["forecast"], plain["forecast"], atol=1e-3)


def test_http_refuses_with_the_reason(address, states):
    fine = states.tolist()
    for payload, reason in (
        ({"inputs": fine, "params": {"channel": ["temperature_500", "q"]}}, "missing are 2m_temperature"),
        ({"inputs": states[:, :, 1:].tolist()}, "the grid does not fit: latitude has 7 points"),
        ({"inputs": fine, "params": {"longitude": [1.0] * WIDTH}}, "longitude"),
        ({"inputs": fine, "params": {"units": ["K", "Pa"]}}, "cannot be converted to 'K'"),
        ({"inputs": (states - 273.15).tolist()}, "cannot be in K"),
        ({"inputs": states[:, :1].tolist()}, "have 1 channels, the network takes 2"),
        ({"inputs": [[1.0]]}, "shape"),
        ({"inputs": fine, "params": {"steps": "many"}}, "steps"),
        ({"inputs": "words"}, ""),
        ({"something": 1}, "inputs"),
        (b"{not json", ""),
    ):
        status, text = ask(address, payload)
        assert 400 <= status < 500, (payload, status, text)
        assert reason in text, (reason, text[-500:])
        assert "Traceback" not in text
    status, _ = ask(address, {"inputs": fine})
    assert status == 200


def dataset(states, *, latitudes=HEIGHT, longitudes=WIDTH):
    """The states as a file of the Climate Data Store has them: short names, levels in hPa, one time."""
    time = {"dims": ["time"], "data": ["2001-01-31T06:00:00"], "attrs": {}}
    axes = {
        "latitude": np.linspace(78.75, -78.75, latitudes),
        "longitude": np.arange(longitudes) * 360 / longitudes,
    }
    coords = {name: {"dims": [name], "attrs": {}, "data": values.tolist()} for name, values in axes.items()}
    level = {"dims": ["pressure_level"], "attrs": {"units": "hPa"}, "data": [500.0]}
    fields = {
        "t": (["time", "pressure_level", "latitude", "longitude"], states[:, :1]),
        "t2m": (["time", "latitude", "longitude"], states[:, 1]),
    }
    return {
        "coords": {"time": time, "pressure_level": level, **coords},
        "attrs": {},
        "dims": {},
        "data_vars": {
            name: {"dims": dims, "attrs": {"units": "K"}, "data": values.tolist()}
            for name, (dims, values) in fields.items()
        },
    }


def test_http_takes_datasets(address, states):
    _, plain = ask(address, {"inputs": states.tolist(), "params": {"steps": 2}})
    status, labelled = ask(address, {"inputs": dataset(states), "params": {"lead_time_hours": 12}})
    assert status == 200, labelled
    assert labelled["forecast"] == plain["forecast"] and labelled["init_time"] == ["2001-01-31T06:00:00"]
    _, whole = ask(address, {"inputs": dataset(states), "params": {"steps": 2, "form": "dataset"}})
    answered = xr.Dataset.from_dict(whole)
    np.testing.assert_array_equal(answered["2m_temperature"].values, np.array(plain["forecast"])[:, :, 1])
    assert answered["time"].values.tolist() == [["2001-01-31T12:00:00", "2001-01-31T18:00:00"]]
    fine = np.repeat(np.repeat(states, 2, axis=2), 2, axis=3)
    payload = {
        "inputs": dataset(fine, latitudes=2 * HEIGHT, longitudes=2 * WIDTH),
        "params": {"regrid": "conservative"},
    }
    status, regridded = ask(address, payload)
    assert status == 200 and regridded["notes"] == [
        "The states were regridded from 16 x 24 to 8 x 12 points (conservative)."
    ]


def test_http_refuses_datasets_with_the_reason_and_nothing_else(address, states):
    without = dataset(states)
    del without["data_vars"]["t2m"]
    winds = dataset(states)
    winds["data_vars"]["t2m"]["attrs"]["units"] = "m s-1"
    late = dataset(states)
    late["coords"]["time"]["data"] = ["soon"]
    for inputs, params, reason in (
        (
            without,
            {},
            "2m_temperature is in none of the sources, which offer temperature at 500 hPa [the request]",
        ),
        (winds, {}, "cannot be converted"),
        (late, {}, "no time of the standard calendar"),
        (
            dataset(states[..., :6], longitudes=6),
            {},
            "name the method by which they shall be: conservative or bilinear",
        ),
        (dataset(states), {"regrid": "spline"}, "It is one of bilinear, conservative"),
        (dataset(states), {"time": ["2001-02-01"]}, "there is no state at 2001-02-01"),
        (dataset(states - 273.15), {}, "Give temperature_500 in K"),
        ({"data_vars": [1]}, {}, "Send what xarray.Dataset.to_dict() gives"),
        ({"t": 1}, {}, "Send what xarray.Dataset.to_dict() gives"),
        ({}, {}, "Send what xarray.Dataset.to_dict() gives"),
    ):
        status, text = ask(address, {"inputs": inputs, "params": params})
        assert status == 400, (reason, status, text[:500])
        refusal = json.loads(text)
        assert reason in refusal["message"], (reason, refusal["message"])
        assert refusal["message"].startswith("WM") and "\n  -> " in refusal["message"]
        assert len(text) < 1500 and "Traceback" not in text and "stack_trace" not in refusal
    status, _ = ask(address, {"inputs": dataset(states)})
    assert status == 200


def test_a_fault_of_the_model_keeps_its_trace_to_the_log(logged, states, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("secret")

    loaded = mlflow.pyfunc.load_model("models:/weathermill-sample@newest")
    monkeypatch.setattr(Forecaster, "rollout_physical", broken)
    with pytest.raises(MlflowException, match=r"^the forecast failed: RuntimeError; the log") as caught:
        loaded.predict(states)
    assert caught.value.get_http_status_code() == 500 and "secret" in caplog.text


def test_pyfunc_takes_xarray(logged, states):
    loaded = mlflow.pyfunc.load_model("models:/weathermill-sample@newest")
    described = mlflow.models.get_model_info("models:/weathermill-sample@newest").metadata
    assert described["computed"] == []
    out = loaded.predict(to_dataset(dataset(states)), params={"steps": 2})
    np.testing.assert_array_equal(out["forecast"], loaded.predict(states, params={"steps": 2})["forecast"])


@pytest.mark.parametrize("alias", ["latest", "v3"])
def test_aliases_that_mlflow_keeps_for_itself_are_refused_at_once(alias):
    with pytest.raises(ParameterError, match="does not allow"):
        tracking_settings({"alias": alias})


def run_the_documented(address, folder, monkeypatch):
    """Run the examples of the documentation, word for word but for the address, against a server."""
    root = Path(__file__).parents[2]
    text = (root / "docs" / "serving.md").read_text().replace("http://127.0.0.1:5001", address)
    blocks = re.findall(r"```(python|console)\n(.*?)```", text, flags=re.DOTALL)
    (example,) = (code for kind, code in blocks if kind == "python" and "requests.post" in code)
    (line,) = (code for kind, code in blocks if kind == "console" and "curl" in code)
    monkeypatch.chdir(folder)
    (folder / "data").symlink_to(root / "data")
    names = {}
    exec(compile(example, "docs/serving.md", "exec"), names)
    assert names["reply"].status_code == 200
    forecast = names["forecast"]
    assert list(forecast["lead_time"].values) == [6, 12, 18, 24, 30, 36, 42, 48]
    assert (
        250 < float(forecast["2m_temperature"].mean()) < 320
        and "regridded from 32 x 64" in forecast.attrs["comment"]
    )
    if shutil.which("curl"):
        (folder / "request.json").write_text(json.dumps(names["request"], default=str))
        subprocess.run(line.removeprefix("$ "), shell=True, check=True, timeout=60)
        again = xr.Dataset.from_dict(json.loads((folder / "forecast.json").read_text())["predictions"])
        xr.testing.assert_identical(again, forecast)
    plain = re.findall(r"```python\n(import mlflow.*?)```", text, flags=re.DOTALL)
    exec(compile(plain[0], "docs/serving.md", "exec"), names)
    np.testing.assert_array_equal(names["answer"]["forecast"][:, :, 1], forecast["2m_temperature"].values)


@pytest.mark.slow
def test_mlflow_models_serve(logged, states, tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/weathermill-sample@newest", "-h", "127.0.0.1", "-p", str(port), "-w", "1"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{logged / 'runs.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DO_NOT_TRACK": "true",
    }
    log = (logged / "serve.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5)
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (
                    logged / "serve.log"
                ).read_text()
                time.sleep(0.5)
        status, answer = ask(address, {"inputs": states.tolist(), "params": {"steps": 2}})
        assert status == 200 and answer["lead_time_hours"] == [6, 12]
        status, text = ask(address, {"inputs": states[:, :1].tolist()})
        assert status == 400 and "have 1 channels, the network takes 2" in text
        run_the_documented(address, tmp_path, monkeypatch)
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
        log.close()
