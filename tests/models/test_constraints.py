from __future__ import annotations

import numpy as np
import pytest
import torch

from weathermill.errors import ModelError
from weathermill.models.constraint_choice import _areas
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.rollout import rollout_loss

SHAPE = (9, 16)
LATITUDE = np.linspace(90, -90, SHAPE[0])
CHANNELS = ChannelTable(
    [
        Channel("temperature_500", "temperature", 500.0),
        Channel("specific_humidity_500", "specific_humidity", 500.0),
        Channel("specific_humidity_850", "specific_humidity", 850.0),
        Channel("surface_pressure", "surface_pressure"),
        Channel("sun", "sun", role="forcing"),
    ]
)
MEAN = np.array([250.0, 1e-3, 5e-3, 98500.0, 0.0])
STD = np.array([10.0, 1e-3, 4e-3, 900.0, 1.0])


def forecaster(**constraints) -> Forecaster:
    torch.manual_seed(0)
    config = ModelConfig(base_channels=8, depth=2, **constraints)
    model = Forecaster(config, CHANNELS, LATITUDE, np.arange(SHAPE[1]) * 22.5, MEAN, STD, STD * 0.5).double()
    return model.eval()


def state():
    return torch.randn(2, 5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def physical(model, prognostic):
    return prognostic.detach().numpy() * STD[:4, None, None] + MEAN[:4, None, None]


def global_mean(fields):
    weights = _areas(LATITUDE)
    return (fields * weights[:, None]).mean(axis=(-1, -2)) / weights.mean()


def test_areas_of_bands_cover_the_sphere():
    for latitude in (LATITUDE, np.linspace(88, -88, 45), np.linspace(-89.5, 89.5, 180)):
        assert abs(_areas(latitude).sum() - 2.0) < 1e-12


def test_humidity_is_never_negative_and_other_channels_are_left_alone():
    free, bound = forecaster(), forecaster(non_negative=("specific_humidity",))
    with torch.no_grad():
        unconstrained, constrained = physical(free, free(state())), physical(bound, bound(state()))
    assert unconstrained[:, 1:3].min() < 0
    np.testing.assert_array_less(-1e-9, constrained[:, 1:3])
    np.testing.assert_allclose(constrained[:, 1:3], np.maximum(unconstrained[:, 1:3], 0), atol=1e-9)
    assert np.array_equal(constrained[:, [0, 3]], unconstrained[:, [0, 3]])
    expected = np.sqrt(((constrained - unconstrained) ** 2).mean(axis=(0, 2, 3)))
    corrections = bound.constraints.corrections()
    assert set(corrections) == {"non_negative/specific_humidity_500", "non_negative/specific_humidity_850"}
    for i, size in enumerate(corrections.values()):
        np.testing.assert_allclose(size, expected[i + 1], rtol=1e-4)


def test_the_mass_of_the_air_is_conserved_through_a_forecast():
    free, bound = forecaster(), forecaster(conserve_mean=("surface_pressure",))
    x = state()
    before = global_mean(physical(bound, x[:, :4]))[:, 3]
    with torch.no_grad():
        drift, kept = (
            list(m.steps(x, 5, x[:, None, 4:].expand(-1, 4, -1, -1, -1)))[-1] for m in (free, bound)
        )
    assert np.abs(global_mean(physical(free, drift))[:, 3] - before).max() > 1.0
    np.testing.assert_allclose(global_mean(physical(bound, kept))[:, 3], before, rtol=1e-9)
    assert bound.constraints.corrections()["conserve_mean/surface_pressure"] > 0


def test_a_pinned_mean_is_that_of_the_training_period():
    model = forecaster(pin_mean=("temperature_500",))
    with torch.no_grad():
        np.testing.assert_allclose(global_mean(physical(model, model(state())))[:, 0], 250.0, rtol=1e-9)


def test_a_budgeted_mean_changes_by_so_much_a_day():
    model = forecaster(budget_mean={"temperature": -0.8})
    x = state()
    with torch.no_grad():
        after = list(model.steps(x, 4, x[:, None, 4:].expand(-1, 3, -1, -1, -1)))[-1]
    change = global_mean(physical(model, after))[:, 0] - global_mean(physical(model, x[:, :4]))[:, 0]
    np.testing.assert_allclose(change, -0.8, rtol=1e-7)


def dry_mass(model, prognostic):
    """In Pa: surface pressure less the weight of the vapour between 500 and 850 hPa, by the trapezoidal rule."""
    means = global_mean(physical(model, prognostic))
    return means[:, 3] - np.trapezoid(means[:, 1:3], [50000.0, 85000.0], axis=1)


def test_the_mass_of_dry_air_is_conserved_while_water_vapour_changes():
    model = forecaster(conserve_dry_mass=True, non_negative=("specific_humidity",))
    free = forecaster(conserve_mean=("surface_pressure",), non_negative=("specific_humidity",))
    x = state()
    for m, conserved in ((model, True), (free, False)):
        with torch.no_grad():
            after = list(m.steps(x, 5, x[:, None, 4:].expand(-1, 4, -1, -1, -1)))[-1]
        error = np.abs(dry_mass(m, after) - dry_mass(m, x[:, :4]))
        assert (error.max() < 1e-3) == conserved
    assert model.constraints.corrections()["conserve_dry_mass/surface_pressure"] > 0
    assert model.constraints.corrections()["conserve_dry_mass/specific_humidity_500"] == 0


def test_the_zonal_filter_damps_short_waves_and_those_near_the_poles_first():
    model = forecaster(zonal_filter=8)
    longitude = np.deg2rad(np.arange(SHAPE[1]) * 22.5)
    (layer,) = model.constraints.layers
    for k in range(SHAPE[1] // 2 + 1):
        wave = torch.tensor(np.cos(k * longitude)).expand(1, 4, *SHAPE)
        filtered, _ = layer(wave, wave)
        response = (filtered * wave).sum(-1) / (wave * wave).sum(-1)
        circle = np.cos(np.deg2rad(LATITUDE))
        expected = np.exp(-((k / (8 * np.maximum(circle, 1e-3))) ** 8))
        np.testing.assert_allclose(response[0, 0], expected, atol=2e-7)
    rolled, _ = layer(state()[:, :4], state()[:, :4].roll(5, -1))
    plain, size = layer(state()[:, :4], state()[:, :4])
    torch.testing.assert_close(rolled, plain.roll(5, -1))
    torch.testing.assert_close(plain.mean(-1), state()[:, :4].mean(-1))
    assert (size > 0).all() and layer(state()[:, :4], state()[:, :4], measure=False)[1] is None


def test_constraints_that_contradict_each_other_or_lack_channels_are_refused():
    with pytest.raises(ModelError, match="surface_pressure cannot obey conserve_mean and conserve_dry_mass"):
        forecaster(conserve_mean=("surface_pressure",), conserve_dry_mass=True)
    with pytest.raises(ModelError, match="temperature_500 cannot obey pin_mean and budget_mean"):
        forecaster(pin_mean=("temperature",), budget_mean={"temperature_500": 0.0})
    with pytest.raises(ModelError, match=r"16 from 0 to 150.*model\.zonal_filter"):
        config = ModelConfig(base_channels=8, depth=2, zonal_filter=8)
        Forecaster(config, CHANNELS, LATITUDE, np.arange(SHAPE[1]) * 10.0, MEAN, STD, STD * 0.5)
    with pytest.raises(ModelError, match="zonal_filter"):
        ModelConfig(zonal_filter=1)


def test_constraints_are_trained_through_and_saved(tmp_path):
    model = forecaster(
        conserve_dry_mass=True,
        non_negative=("specific_humidity_500",),
        budget_mean={"temperature": 0.1},
        zonal_filter=4,
    ).train()
    window = torch.stack([state(), state().roll(1, -1), state().roll(2, -1)], 1)
    terms = rollout_loss(model, AreaWeightedLoss("mse", _areas(LATITUDE)), window)
    terms.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    loaded = Forecaster.load(model.float().save(tmp_path))
    assert loaded.config == model.config and len(loaded.constraints.layers) == 4
    assert not forecaster().constraints


def test_an_unknown_name_is_refused():
    with pytest.raises(ModelError, match=r"'humidity'.*specific_humidity"):
        forecaster(non_negative=("humidity",))
    with pytest.raises(ModelError, match="sun"):
        forecaster(pin_mean=("sun",))


def test_constraints_on_some_channels_act_one_after_the_other_as_on_the_whole_state():
    model = forecaster(
        zonal_filter=8,
        conserve_mean=("temperature_500",),
        pin_mean=("specific_humidity_850",),
        non_negative=("specific_humidity",),
        conserve_dry_mass=True,
    )
    before, after = state()[:, :4], state().roll(1, 0)[:, :4]
    expected, sizes = after.clone(), {}
    for layer in model.constraints.layers:
        mine = expected[:, layer.channels]
        corrected = layer.corrected(before[:, layer.channels], mine)
        expected[:, layer.channels] = corrected
        for channel, size in zip(
            layer.channels, (corrected - mine).square().mean((0, 2, 3)).sqrt(), strict=True
        ):
            sizes[f"{layer.name}/{CHANNELS[channel].name}"] = float(size) * STD[channel]
    with torch.no_grad():
        torch.testing.assert_close(model.constraints(before, after), expected)
    assert model.constraints.corrections() == pytest.approx(sizes)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"conserve_mean": ("t",)}, "air, water and heat cross its edges"),
        ({"pin_mean": ("t",)}, "goes from latitude 60 to 30"),
        ({"budget_mean": {"t": 0.0}}, "air, water and heat cross its edges"),
        ({"conserve_dry_mass": True}, "air, water and heat cross its edges"),
        ({"zonal_filter": 8}, "evenly spaced all round the globe"),
        ({"name": "sfno"}, "all edges open, padded by replication"),
        ({"boundary": "sphere"}, "does not cover the globe"),
    ],
)
def test_what_holds_for_the_globe_alone_is_refused_on_a_region(config, message):
    one = np.ones(1)
    region = np.linspace(60, 30, 16), np.linspace(0, 45, 16)
    table = ChannelTable([Channel("t", "t")])
    with pytest.raises(ModelError, match=message) as refused:
        Forecaster(ModelConfig(base_channels=4, depth=1, **config), table, *region, 0 * one, one, one)
    name = next(iter(config))
    assert f"model.{name}" in refused.value.where and refused.value.remedy


def test_the_zonal_filter_takes_a_hemisphere_and_a_mean_of_it_is_refused():
    one, table = np.ones(1), ChannelTable([Channel("t", "t")])
    hemisphere = np.linspace(90, 0, 16), np.arange(16) * 22.5
    Forecaster(ModelConfig(base_channels=4, depth=1, zonal_filter=8), table, *hemisphere, 0 * one, one, one)
    with pytest.raises(ModelError, match="grid of the globe"):
        Forecaster(
            ModelConfig(base_channels=4, depth=1, conserve_mean=("t",)), table, *hemisphere, 0 * one, one, one
        )
