from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import GridError
from weathermill.fields.geometry import (
    area_weights,
    band_areas,
    bounds_from,
    cell_areas,
    corners_of,
    cyclic_duplicates,
    gaussian_latitudes,
    gaussian_number,
    has_pole_points,
    is_global_longitude,
    latitude_corners,
    longitude_corners,
    polygon_areas,
)

latitudes = st.lists(st.floats(-89.9, 89.9), min_size=3, max_size=40, unique=True).map(
    lambda values: np.array(sorted(np.round(values, 3), reverse=True))
)


def test_corners_of_pole_points_end_at_the_poles():
    corners = latitude_corners(np.linspace(90, -90, 181))
    assert corners[0] == 90.0 and corners[-1] == -90.0
    assert np.allclose(corners[1:-1], np.arange(89.5, -90, -1))


def test_corners_of_cells_reach_the_poles_exactly():
    for n in (32, 64, 120, 180, 720):
        centres = 90.0 - 180.0 * (np.arange(n) + 0.5) / n
        corners = latitude_corners(centres)
        assert corners[0] == 90.0 and corners[-1] == -90.0
        assert np.allclose(corners, np.linspace(90, -90, n + 1), atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(latitudes)
def test_corners_lie_between_points_and_areas_are_positive(values):
    if np.unique(values).size < 3:
        return
    values = np.unique(values)[::-1]
    corners = latitude_corners(values)
    assert np.all(corners[:-1] >= values) and np.all(values >= corners[1:])
    assert np.abs(corners).max() <= 90.0
    assert np.all(band_areas(corners) > 0)
    assert np.allclose(latitude_corners(values[::-1])[::-1], corners, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        (np.linspace(90, -90, 181), np.arange(360.0)),
        (np.linspace(-87.1875, 87.1875, 32), np.arange(64) * 5.625),
        (gaussian_latitudes(96)[0], np.arange(192) * 1.875),
        (np.linspace(90, -90, 31), np.arange(60) * 6.0 - 180.0),
    ],
)
def test_areas_sum_to_the_sphere(latitude, longitude):
    for areas in (
        cell_areas(latitude, longitude),
        polygon_areas(latitude_corners(latitude), longitude_corners(longitude)),
    ):
        assert areas.shape == (latitude.size, longitude.size)
        assert areas.sum() == pytest.approx(4 * np.pi, rel=1e-13)
    assert cell_areas(latitude).sum() == pytest.approx(4 * np.pi, rel=1e-13)


def test_areas_agree_with_quadrature():
    latitude, longitude = np.array([40.0, 50.0, 60.0]), np.array([10.0, 12.0, 14.0])
    fine = np.radians(np.linspace(45.0, 55.0, 200001))
    expected = np.radians(2.0) * np.trapezoid(np.cos(fine), fine)
    assert cell_areas(latitude, longitude)[1, 1] == pytest.approx(expected, rel=1e-9)


def test_polar_cells_keep_their_digits():
    corners = np.array([90.0, 89.999])
    half = np.radians(0.0005)
    assert band_areas(corners)[0] == pytest.approx(2 * np.sin(half) ** 2, rel=1e-12)


def test_polygon_areas_agree_with_the_spherical_excess():
    def vector(lat, lon):
        lat, lon = np.radians([lat, lon])
        return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])

    def triangle(a, b, c):
        # Van Oosterom and Strackee (1983).
        numerator = np.dot(a, np.cross(b, c))
        return abs(2 * np.arctan2(numerator, 1 + a @ b + b @ c + c @ a))

    a, b, c, d = vector(40, 0), vector(40, 15), vector(55, 15), vector(55, 0)
    expected = triangle(a, b, c) + triangle(a, c, d)
    assert polygon_areas(np.array([55.0, 40.0]), np.array([0.0, 15.0]))[0, 0] == pytest.approx(
        expected, rel=1e-12
    )


def test_weights_have_mean_one_and_the_cosine_is_an_option():
    latitude = np.linspace(90, -90, 19)
    exact, cosine = area_weights(latitude), area_weights(latitude, kind="cosine")
    assert exact.mean() == pytest.approx(1.0) and cosine.mean() == pytest.approx(1.0)
    assert exact[0] > 0.0 and cosine[0] == 0.0
    assert np.allclose(exact[1:-1], cosine[1:-1], rtol=0.02)
    with pytest.raises(GridError, match="kind 'sine'"):
        area_weights(latitude, kind="sine")


def test_gaussian_grids_have_quadrature_weights_and_are_recognised():
    for n in (16, 32, 160, 320):
        latitude, weights = gaussian_latitudes(2 * n)
        assert gaussian_number(latitude) == n
        assert gaussian_number(np.round(latitude, 4)[::-1]) == n
        assert np.allclose(cell_areas(latitude)[:, 0] / (2 * np.pi), weights, rtol=1e-10)
    for regular in (
        np.linspace(87.1875, -87.1875, 32),
        np.linspace(90, -90, 181),
        gaussian_latitudes(64)[0][:20],
    ):
        assert gaussian_number(regular) is None


def test_gaussian_quadrature_integrates_polynomials_exactly():
    latitude, _ = gaussian_latitudes(32)
    mu = np.sin(np.radians(latitude))
    weights = area_weights(latitude) / 32
    for power in (2, 10, 40):
        assert weights @ mu**power == pytest.approx(1 / (power + 1), rel=1e-12)


@pytest.mark.parametrize(
    ("longitude", "expected"),
    [
        (np.arange(0, 360, 10.0), True),
        (np.arange(-180, 180, 10.0), True),
        (np.arange(20, 380, 2.5), True),
        (np.arange(0, 350, 10.0), False),
        (np.arange(-25, 45.5, 0.5), False),
        (np.arange(0, 361, 10.0), False),
        (np.array([0.0, 10.0, 20.0, 340.0, 350.0]), False),
    ],
)
def test_whether_longitudes_go_round(longitude, expected):
    assert is_global_longitude(longitude) is expected
    assert is_global_longitude(longitude[::-1]) is expected


def test_longitude_corners_close_the_circle():
    corners = longitude_corners(np.arange(64) * 5.625)
    assert corners[-1] - corners[0] == 360.0 and corners[0] == -2.8125
    region = longitude_corners(np.array([-25.0, -24.5, -24.0]))
    assert region.tolist() == [-25.25, -24.75, -24.25, -23.75]


def test_duplicated_meridians_and_poles():
    assert cyclic_duplicates(np.array([0.0, 90.0, 180.0, 270.0, 360.0])).tolist() == [False] * 4 + [True]
    assert not cyclic_duplicates(np.arange(36) * 10.0 - 180.0).any()
    assert has_pole_points(np.linspace(90, -90, 5)) and not has_pole_points(np.linspace(87, -87, 5))


def test_bounds_and_corners():
    corners = np.array([90.0, 60.0, 0.0, -90.0])
    assert np.array_equal(corners_of(bounds_from(corners)), corners)
    assert np.array_equal(corners_of(np.sort(bounds_from(corners), axis=1)), corners)
    with pytest.raises(GridError, match="gaps"):
        corners_of(np.array([[0.0, 1.0], [2.0, 3.0]]))
    with pytest.raises(GridError, match="shape"):
        corners_of(np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("values", "said"),
    [([10.0, 10.0, 5.0], "monotonic"), ([95.0, 0.0], "poles"), ([10.0], "one latitude")],
)
def test_latitudes_that_make_no_cells(values, said):
    with pytest.raises(GridError, match=said):
        latitude_corners(np.array(values))
