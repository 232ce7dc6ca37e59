from __future__ import annotations

import pickle

import numpy as np
import pytest

from weathermill.errors import MissingVariableError, ParameterError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.filling import NearestFiller, fill_missing


@pytest.fixture(params=[True, False], ids=["lazy", "loaded"])
def fields(request, make_source):
    source = make_source(n_time=6, levels=None, names=("sst",), base=290.0, n_lat=19, n_lon=36)
    source["sst"][:, 5:9, 0:6] = np.nan
    source["sst"][:, 5:9, -2:] = np.nan
    source["sst"][3, 15, 20] = np.nan
    out = canonicalise([source], surface_variables=["sea_surface_temperature"])
    return out.chunk(time=4) if request.param else out.load()


def test_by_a_constant(fields):
    out = fill_missing(fields, {"sea_surface_temperature": 271.35})["sea_surface_temperature"]
    before = fields["sea_surface_temperature"].values
    assert np.allclose(out.values[np.isnan(before)], 271.35)
    assert np.array_equal(out.values[~np.isnan(before)], before[~np.isnan(before)])
    assert out.dtype == np.float32


def test_by_the_nearest_value_across_the_seam(fields):
    out = fill_missing(fields, {"sea_surface_temperature": "nearest"})["sea_surface_temperature"]
    before = fields["sea_surface_temperature"]
    assert not out.isnull().any()
    # The block reaches from 340 to 50 degrees east: its western edge is nearest to 330 degrees east.
    assert np.array_equal(out[:, 6, 34], before[:, 6, 33])
    assert np.array_equal(out[:, 7, 5], before[:, 7, 6])
    assert np.isin(out.values[3, 15, 20], before.values[3, 14:17, 19:22])


def test_by_the_climatology_of_a_period(fields):
    out = fill_missing(fields, {"sea_surface_temperature": "climatology"}, stop="2020-01-01T12:00")[
        "sea_surface_temperature"
    ]
    before = fields["sea_surface_temperature"]
    expected = before.values[:2, 15, 20].mean()
    assert float(out[3, 15, 20]) == pytest.approx(expected, rel=1e-6)
    assert not out.isnull().any()
    assert np.allclose(out[:, 6, 34], before.values[:2, 6, 33].mean(), rtol=1e-6)
    with pytest.raises(ParameterError, match="no time of"):
        fill_missing(fields, {"sea_surface_temperature": "climatology"}, start="2031").compute()


def test_maps_without_values_stay_missing():
    filler = NearestFiller(np.array([10.0, 0.0]), np.array([0.0, 10.0]))
    block = np.full((2, 2, 2), np.nan)
    block[1, 0, 0] = 3.0
    out = filler(block)
    assert np.isnan(out[0]).all() and (out[1] == 3.0).all()
    assert np.isnan(block[1, 1, 1]), "the input is left alone"
    assert np.array_equal(pickle.loads(pickle.dumps(filler))(block), out, equal_nan=True)


def test_patterns_that_change_are_followed_and_not_hoarded():
    rng = np.random.default_rng(0)
    latitude, longitude = np.linspace(80, -80, 9), np.arange(0, 360, 30.0)
    filler = NearestFiller(latitude, longitude)
    block = rng.standard_normal((30, 9, 12))
    block[rng.uniform(size=block.shape) < 0.3] = np.nan
    out = filler(block)
    assert not np.isnan(out).any() and len(filler._known) <= 8
    for t in range(30):
        missing = np.flatnonzero(np.isnan(block[t]).ravel())
        valid = np.flatnonzero(~np.isnan(block[t]).ravel())
        distance = np.linalg.norm(filler.points[missing][:, None] - filler.points[valid][None], axis=-1)
        chosen = out[t].ravel()[missing]
        best = distance.min(axis=1)
        ties = np.isclose(distance, best[:, None], atol=1e-12)
        candidates = np.where(ties, block[t].ravel()[valid][None, :], np.nan)
        assert np.all(np.any(candidates == chosen[:, None], axis=1))


def test_unknown_rules_and_variables(fields):
    with pytest.raises(MissingVariableError, match="salinity"):
        fill_missing(fields, {"salinity": 35.0})
    for rule in ("magic", True, None):
        with pytest.raises(ParameterError, match="sea_surface_temperature"):
            fill_missing(fields, {"sea_surface_temperature": rule})
