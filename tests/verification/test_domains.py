"""A part of the globe is called what it is, in scores, tables, figures and spectra."""

from __future__ import annotations

import numpy as np
import pytest

from weathermill.verification.metrics import scores_to_metrics
from weathermill.verification.plots import skill_curves
from weathermill.verification.regions import standard_regions, whole_region
from weathermill.verification.scorecards import scorecard
from weathermill.verification.scores import ScoreAccumulator
from weathermill.verification.skill_tables import headline_table, region_table, spectrum_table
from weathermill.verification.spectra import SpectrumAccumulator, cosine_power, spectra_plot
from weathermill.verification.summary import text_summary

AROUND = np.arange(0.0, 360.0, 10.0)
EUROPE = np.linspace(70.0, 35.0, 8), np.linspace(-10.0, 30.0, 9)


@pytest.mark.parametrize(
    ("latitude", "longitude", "names"),
    [
        (
            np.linspace(85, -85, 18),
            AROUND,
            ["global", "tropics", "extratropics_north", "extratropics_south"],
        ),
        (*EUROPE, ["domain"]),
        (np.linspace(90, 0, 10), AROUND, ["domain", "extratropics_north"]),
        (np.linspace(30, -30, 7), AROUND, ["domain", "tropics"]),
        (np.linspace(15, -15, 4), AROUND, ["domain", "tropics"]),
        (np.linspace(10, -10, 3), AROUND, ["domain"]),
        (np.linspace(-85, 25, 12), AROUND, ["domain", "tropics", "extratropics_south"]),
        # From pole to pole, but not round.
        (np.linspace(90, -90, 19), np.arange(0.0, 180.0, 10.0), ["domain"]),
        (*np.meshgrid(*EUROPE, indexing="ij"), ["domain"]),
    ],
)
def test_regions_have_their_names_where_the_grid_covers_them_whole(latitude, longitude, names):
    assert [region.name for region in standard_regions(latitude, longitude)] == names
    assert whole_region(names) == names[0]


def test_the_region_of_all_cells_is_found_among_boxes():
    assert whole_region(["box", "domain"]) == "domain"
    assert whole_region(["box", "global"]) == "global"
    assert whole_region(["box"]) == "box"


@pytest.fixture
def regional():
    latitude, longitude = EUROPE
    rng = np.random.default_rng(0)
    shape = (5, 2, 1, latitude.size, longitude.size)
    truth = rng.normal(size=shape).astype(np.float32)
    weights = np.cos(np.deg2rad(latitude))
    scores = ScoreAccumulator(
        ["2m_temperature"], [6, 24], weights, latitude=latitude, longitude=longitude, units=["K"]
    )
    inits = np.datetime64("2001-01-01") + np.arange(5) * np.timedelta64(1, "D")
    scores.update(truth + 1.0, truth, None, inits, persistence=truth[:, 0] + 2.0)
    spectra = SpectrumAccumulator(["2m_temperature"], [6, 24], weights, latitude, longitude, units=["K"])
    spectra.update(0.5 * truth, truth)
    return scores.result(), spectra.result()


def test_scores_of_a_region_are_not_called_global(regional):
    scores, spectra = regional
    assert scores["region"].values.tolist() == spectra["region"].values.tolist() == ["domain"]
    assert "RMSE of forecasts from 5 initial times, whole domain" in text_summary(scores)
    assert headline_table(scores)["title"] == "Whole domain"
    assert region_table(scores)["rows"][0]["label"] == "Whole domain"
    titles = [
        figure.get_suptitle() for figure in (skill_curves(scores), scorecard(scores), spectra_plot(spectra))
    ]
    assert all("whole domain" in title and "global" not in title for title in titles)


def test_metrics_have_the_same_names_whatever_the_grid(regional):
    metrics = scores_to_metrics(regional[0])
    assert metrics["rmse/2m_temperature/6h"] == pytest.approx(1.0, abs=1e-6)
    assert not [name for name in metrics if "domain" in name]


def test_waves_across_a_domain_have_their_power_and_a_slope_makes_no_noise():
    x = (np.arange(40) + 0.5) / 40
    for k in (1, 7, 39):
        power = cosine_power(3.0 + 2.0 * np.cos(np.pi * k * x)[None])[0]
        expected = np.zeros(40)
        expected[[0, k]] = 9.0, 2.0
        np.testing.assert_allclose(power, expected, atol=1e-12)
    fields = 5e4 + np.random.default_rng(0).normal(size=(3, 25))
    np.testing.assert_allclose(cosine_power(fields).sum(-1), (fields**2).mean(-1), rtol=1e-12)
    # Of a slope, half waves of a high number hold k^-4 of the variance: a jump at the seam would leave k^-2.
    slope = cosine_power(x[None])[0][1::2]
    k = 2 * np.arange(slope.size) + 1
    np.testing.assert_allclose(slope[:5] / slope[0], k[:5] ** -4.0, rtol=0.05)


def test_spectra_of_a_region_are_by_half_waves_across_it(regional):
    _, spectra = regional
    assert spectra.sizes["wavenumber"] == EUROPE[1].size
    assert spectra["wavenumber"].attrs["long_name"] == "number of half waves across the domain"
    ratio = spectra["power"].sel(source="forecast") / spectra["power"].sel(source="truth")
    np.testing.assert_allclose(ratio, 0.25, rtol=1e-5)
    figure = spectra_plot(spectra)
    assert figure.axes[-1].get_xlabel() == "Half waves across the domain"
    table = spectrum_table(spectra)
    assert table["columns"][1] == "Half waves 1-3" and table["title"] == "whole domain"
