"""Networks of users' own: found in a fresh process, and never because a model's file names a module."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from weathermill.configuration import network_faults
from weathermill.errors import ModelError
from weathermill.models import own_networks, registry
from weathermill.models.files import read_model, write_model
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig, register_network
from weathermill.parameters import ModelParameters
from weathermill.tensors.channels import Channel, ChannelTable

SOURCE = """
from torch import nn
from weathermill.models.registry import register_network

@register_network("pointwise")
def build(config, *, in_channels, out_channels, grid_shape, latitude):
    return nn.Conv2d(in_channels, out_channels, 1)
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A process to which nothing is registered yet, with a module that registers a network where Python finds it."""
    registry.available_networks()
    (tmp_path / "my_networks.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(own_networks.VARIABLE, raising=False)
    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))

    def forget():
        registry._NETWORKS.pop("pointwise", None)
        sys.modules.pop("my_networks", None)
        importlib.invalidate_caches()

    forget()
    yield forget
    forget()


@pytest.fixture
def saved(fresh, tmp_path):
    """A model with the network, of which this process then knows nothing any more."""
    own_networks.import_networks("my_networks")
    channel = Channel("temperature_850", "temperature", 850.0, "prognostic", "K")
    forecaster = Forecaster(
        ModelConfig("pointwise"),
        ChannelTable([channel]),
        np.linspace(70, -70, 8),
        np.arange(16) * 22.5,
        np.array([280.0]),
        np.array([10.0]),
        np.array([1.0]),
    )
    folder = forecaster.save(tmp_path / "model")
    fresh()
    return folder, forecaster


def test_a_model_names_the_module_of_its_network(saved):
    assert read_model(saved[0])[0]["network_module"] == "my_networks"


def test_a_module_that_only_a_model_names_is_not_imported(saved):
    with pytest.raises(
        ModelError, match="registered by the module 'my_networks', which is not imported"
    ) as told:
        Forecaster.load(saved[0])
    assert "model.module: my_networks" in str(told.value)
    assert "WEATHERMILL_NETWORK_MODULES=my_networks" in str(told.value)
    assert "my_networks" not in sys.modules


def test_a_model_loads_where_the_parameters_name_the_module(saved):
    assert network_faults(ModelParameters(name="pointwise", module="my_networks")) == []
    state = torch.randn(1, 1, 8, 16)
    assert torch.equal(Forecaster.load(saved[0])(state), saved[1].eval()(state))


def test_a_model_loads_in_a_fresh_process_where_the_environment_names_the_module(saved, monkeypatch):
    monkeypatch.setenv("WEATHERMILL_NETWORK_MODULES", "my_networks")
    monkeypatch.setenv("PYTHONPATH", str(saved[0].parent))
    code = "import sys; from weathermill.models.forecaster import Forecaster as F; print(F.load(sys.argv[1]).config.name)"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(saved[0])], capture_output=True, encoding="utf-8", check=False
    )
    assert ran.stdout.strip() == "pointwise", ran.stderr


@pytest.mark.parametrize("value", ["my_networks:build", "my_networks"])
def test_a_model_loads_where_an_installed_package_provides_the_network(saved, monkeypatch, value):
    point = EntryPoint("pointwise", value, own_networks.GROUP)
    monkeypatch.setattr(
        own_networks, "entry_points", lambda group, name="pointwise": [point] * (name == "pointwise")
    )
    assert own_networks.network_modules("pointwise") == {"my_networks"}
    assert own_networks.network_modules("unet") == set()
    assert Forecaster.load(saved[0]).config.name == "pointwise"


def test_a_network_of_another_module_than_then_is_told(saved, caplog):
    folder, _ = saved
    metadata, weights = read_model(folder)
    write_model(folder, weights, {**metadata, "network_module": "elsewhere"})
    own_networks.import_networks("my_networks")
    with caplog.at_level(logging.WARNING):
        Forecaster.load(folder)
    assert "trained with the network 'pointwise' of elsewhere; here it is that of my_networks" in caplog.text


def test_models_of_our_networks_name_no_module(fresh, caplog):
    assert registry.network_module("unet") == ""
    with caplog.at_level(logging.WARNING):
        registry.require_network("unet", "", "somewhere")
    assert not caplog.records


def test_two_modules_may_not_register_one_name(fresh):
    own_networks.import_networks("my_networks")
    with pytest.raises(ModelError, match="have the same name, 'pointwise'"):
        register_network("pointwise")(lambda config, **_: None)
    with pytest.raises(ModelError, match=r"weathermill\.models\.unet and of .* have the same name, 'unet'"):
        register_network("unet")(lambda config, **_: None)


@pytest.mark.parametrize(
    ("name", "module", "told"),
    [
        ("pointwise", None, "model.name: There is no architecture 'pointwise'; there are sfno"),
        (
            "pointwise",
            "no_such_module",
            "model.module: The module 'no_such_module' of an own network cannot be",
        ),
        ("unet", "no_such_module", "model.module: "),
    ],
)
def test_a_network_that_is_not_known_is_a_fault_of_the_configuration(fresh, name, module, told):
    [fault] = network_faults(ModelParameters(name=name, module=module))
    assert fault.startswith(told)


def test_modules_of_networks_are_named_without_importing_them(fresh, monkeypatch):
    monkeypatch.setenv(own_networks.VARIABLE, "one, two")
    assert own_networks.network_modules("unet", "my_networks") == {"my_networks", "one", "two"}
    assert "my_networks" not in sys.modules
    own_networks.import_networks("my_networks")
    monkeypatch.delenv(own_networks.VARIABLE)
    assert own_networks.network_modules("unet") == set()
    assert "my_networks" in own_networks.network_modules(None)
