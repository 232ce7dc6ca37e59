"""All faults of the configuration are told at once, before anything runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from kedro.config import OmegaConfigLoader

from weathermill.configuration import check_configuration, dask_faults, require_device
from weathermill.errors import ConfigurationError, ParameterError
from weathermill.parameters import validate_parameters
from weathermill.settings import CONFIG_LOADER_ARGS

PARAMETERS = "ingest: {variables: [temperature]}\n"


@pytest.fixture
def check(tmp_path):
    """Check the configuration of files in conf/base and conf/case."""
    for folder in ("base", "case"):
        (tmp_path / "conf" / folder).mkdir(parents=True)
    (tmp_path / "conf" / "base" / "parameters.yml").write_text(PARAMETERS)

    def run(**files):
        for name, text in files.items():
            (tmp_path / "conf" / "case" / f"{name}.yml").write_text(text)
        loader = OmegaConfigLoader(str(tmp_path / "conf"), env="case", **CONFIG_LOADER_ARGS)
        return check_configuration(SimpleNamespace(config_loader=loader))

    return run


def test_faults_of_all_files_are_told_together(check, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParameterError) as caught:
        check(
            parameters="seed: 18446744073709551616\ntrain: {learning_rate: .inf, device: cuda}\n",
            globals="case: a/b\n",
            mlflow="tracking_url: x\n",
            dask="cluster: 4\nscheduler: threads\n",
        )
    told = str(caught.value)
    assert "7 faults in the configuration" in told
    for fault in (
        "seed: Input should be less than 18446744073709551616",
        "train.learning_rate: Input should be a finite number (given: inf)",
        "globals.yml: case: it must be the name of a folder, in quotes if a number (given: 'a/b')",
        "mlflow.yml: tracking_url",
        "dask.yml: cluster: it must be null or a mapping, such as {n_workers: 4} (given: 4)",
        "dask.yml: scheduler: unknown; known: cluster, config",
        "train.device: Device 'cuda' was asked for",
    ):
        assert fault in told


@pytest.mark.parametrize("name", ["dask", "mlflow", "parameters", "catalog", "credentials"])
def test_a_file_that_holds_a_list_is_named(check, name):
    with pytest.raises(ConfigurationError) as caught:
        check(**{name: "- a\n- b\n"})
    assert f"conf/case/{name}.yml: it holds a list, not names and values" in str(caught.value)


def test_a_sound_configuration_passes_with_its_types(check):
    parameters = check(dask="cluster: null\nconfig: {array.chunk-size: 64MiB}\n", globals="case: europe\n")
    assert parameters.ingest.variables == ["temperature"]


@pytest.mark.parametrize(
    ("cluster", "fault"),
    [
        ({"n_workers": -1}, "cluster.n_workers"),
        ({"n_workers": "two"}, "cluster.n_workers"),
        (
            {"memory_limit": "lots"},
            "cluster.memory_limit: it is no amount of memory, such as 4GiB (given: 'lots')",
        ),
        ({"threads_per_worker": 0}, "cluster.threads_per_worker"),
    ],
)
def test_a_cluster_of_the_wrong_shape_is_told(cluster, fault):
    assert any(fault in line for line in dask_faults({"cluster": cluster}))
    assert dask_faults({"cluster": {"n_workers": 2, "memory_limit": "4GiB", "dashboard_address": None}}) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "parameters",
    [
        lambda x: {"train": {"learning_rate": x}},
        lambda x: {"train": {"weight_decay": x}},
        lambda x: {"train": {"step": {"clip_norm": x}}},
        lambda x: {"train": {"loss_weights": {"variables": {"temperature": x}}}},
        lambda x: {"model": {"damping": x}},
        lambda x: {"model": {"budget_mean": {"temperature": x}}},
        lambda x: {"regrid": {"target": {"name": "regular", "step": x}}},
        lambda x: {"evaluate": {"map_lead_times_hours": [x]}},
        lambda x: {"splits": {"train": x, "validation": 0.1, "test": 0.1}},
        lambda x: {"ingest": {"variables": ["temperature"], "levels": [x]}},
        lambda x: {"ingest": {"variables": ["temperature"], "fill": {"temperature": x}}},
    ],
)
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(parameters, number):
    with pytest.raises(ParameterError, match=r"finite|greater than|less than"):
        validate_parameters({"ingest": {"variables": ["temperature"]}, **parameters(number)})


@pytest.mark.parametrize("seed", [-1, 2**64, 2**200])
def test_a_seed_that_torch_does_not_take_is_refused(seed):
    with pytest.raises(ParameterError, match="seed"):
        validate_parameters({"ingest": {"variables": ["temperature"]}, "seed": seed})
    validate_parameters({"ingest": {"variables": ["temperature"]}, "seed": 2**64 - 1})
    torch.Generator().manual_seed(2**64 - 1)


def test_an_absent_device_alone_matters_to_a_run_that_trains(check, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parameters = check(parameters="train: {device: cuda}\n")
    with pytest.raises(ParameterError, match=r"train\.device: Device 'cuda' was asked for"):
        require_device(parameters)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    require_device(parameters)
