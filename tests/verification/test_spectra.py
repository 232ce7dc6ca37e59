from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import VerificationError
from weathermill.verification.spectra import (
    SpectrumAccumulator,
    band_ratio,
    cosine_power,
    spectra_plot,
    spectral_ratio,
    zonal_power,
)
from weathermill.verification.style import figure_png


@pytest.mark.parametrize("n", [24, 25])
def test_power_adds_up_to_the_mean_square(n):
    fields = 3 + np.random.default_rng(0).normal(size=(5, n))
    np.testing.assert_allclose(zonal_power(fields).sum(-1), (fields**2).mean(-1), rtol=1e-12)


def test_a_wave_has_its_power_at_its_wavenumber():
    longitude = np.deg2rad(15.0 * np.arange(24))
    power = zonal_power(
        5e4 + 2 * np.sin(3 * longitude).astype(np.float32)[None] + np.zeros((1, 24), np.float32)
    )[0]
    np.testing.assert_allclose(power[3], 2.0, rtol=1e-3)
    np.testing.assert_allclose(power[0], 25e8, rtol=1e-6)
    assert np.delete(power, [0, 3]).max() < 1e-3
    nyquist = zonal_power(np.cos(12 * longitude)[None])[0]
    np.testing.assert_allclose(nyquist[12], 1.0)


def test_a_blurred_forecast_shows_where_it_is_blurred(grid):
    latitude, _, weights = grid
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(6, 2, 2, 19, 24)).astype(np.float32)
    kernel = np.array([0.25, 0.5, 0.25])
    forecast = sum(w * np.roll(truth, s, axis=-1) for w, s in zip(kernel, (-1, 0, 1), strict=True))
    accumulator = SpectrumAccumulator(
        ["geopotential_500", "x"], [24, 120], weights, latitude, units=["m2 s-2", "1"]
    )
    for init in range(6):
        accumulator.update(forecast[init : init + 1], truth[init : init + 1])
    spectra = accumulator.result()
    wavenumber = spectra["wavenumber"].to_numpy()
    response = (0.5 + 0.5 * np.cos(2 * np.pi * wavenumber / 24)) ** 2
    ratio = spectral_ratio(spectra)
    np.testing.assert_allclose(ratio, np.broadcast_to(response, ratio.shape), atol=1e-5)
    total = spectra["power"].sel(source="truth", region="global", channel="x").sum("wavenumber")
    expected = np.average((truth[:, :, 1].astype(float) ** 2).mean((0, 3)), axis=1, weights=weights)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert figure_png(spectra_plot(spectra)).startswith(b"\x89PNG")


def test_pieces_gaps_and_faults(grid):
    latitude, _, weights = grid
    truth = np.random.default_rng(2).normal(size=(1, 1, 1, 19, 24)).astype(np.float32)
    truth[..., 0, 5] = np.nan
    accumulator = SpectrumAccumulator(["x"], [24], weights, latitude)
    with pytest.raises(VerificationError, match="no spectrum"):
        accumulator.result()
    accumulator.update(truth, truth, lead_times=[24])
    accumulator.update(1e9 * truth, truth, lead_times=[30])
    power = accumulator.result()["power"].sel(source="forecast", region="global").squeeze()
    rows = truth[0, 0, 0, 1:].astype(float)
    np.testing.assert_allclose(power.sum(), np.average((rows**2).mean(1), weights=weights[1:]), rtol=1e-5)
    with pytest.raises(VerificationError, match="has shape"):
        accumulator.update(truth, truth, lead_times=[24, 48])


def test_bands_hold_the_power_of_their_waves(grid):
    latitude, longitude, weights = grid
    waves = {2: 1.0, 6: 0.5, 11: 2.0}
    truth = sum(np.cos(k * np.deg2rad(longitude)) for k in waves)
    forecast = sum(a * np.cos(k * np.deg2rad(longitude)) for k, a in waves.items())
    shape = (1, 1, 1, latitude.size, longitude.size)
    accumulator = SpectrumAccumulator(["x"], [6.0], weights, latitude)
    accumulator.update(np.broadcast_to(forecast, shape), np.broadcast_to(truth, shape))
    ratio = band_ratio(accumulator.result()).sel(channel="x", region="global", lead_time=6.0)
    assert ratio["band"].values.tolist() == ["1-3", "4-8", "9-12"]
    np.testing.assert_allclose(ratio, [1.0, 0.25, 4.0], rtol=1e-5)


@pytest.mark.parametrize("power", [zonal_power, cosine_power])
def test_spectra_of_fields_that_grew_without_bound_do_not_overflow(power):
    wave = np.cos(2 * np.pi * 3 * np.arange(24) / 24).astype(np.float32)
    large = power(wave * np.float32(3e37))
    np.testing.assert_allclose(large.sum(), 0.5 * 3e37**2, rtol=1e-5)
