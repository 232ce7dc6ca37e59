"""How values lie in GRIB messages: several fields in one, orders of scanning, projected grids, steps in minutes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from grib_writing import NI, NJ, field, message, needs_eccodes

from weathermill.errors import CoordinateError, UnreadableSourceError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import attached
from weathermill.fields.grib_sections import split_fields
from weathermill.fields.opening import open_sources
from weathermill.fields.projections import Figure, lambert, polar_stereographic

pytestmark = needs_eccodes


def sections(content: bytes) -> dict[int, bytes]:
    """Return the sections of a message of edition 2 by number."""
    found, place = {}, 16
    while place < len(content) - 4:
        size = int.from_bytes(content[place : place + 4], "big")
        found[content[place + 4]] = content[place : place + size]
        place += size
    return found


def joined(*messages: bytes, shared: int, bitmap_of_the_first: bool = False) -> bytes:
    """Return one message that holds the fields of several; sections below ``shared`` are those of the first."""
    first, *others = [sections(content) for content in messages]
    body = b"".join(first[n] for n in sorted(first))
    for other in others:
        if bitmap_of_the_first:
            other[6] = (6).to_bytes(4, "big") + bytes([6, 254])
        body += b"".join(other[n] for n in sorted(other) if n >= shared)
    return messages[0][:8] + (16 + len(body) + 4).to_bytes(8, "big") + body + b"7777"


def opened_as(path, **wanted):
    opened = open_sources(path)
    return canonicalise(opened.datasets, source_names=opened.names, **wanted)


@pytest.mark.parametrize("shared", [3, 4])
def test_two_fields_in_one_message_are_both_read(tmp_path, shared):
    u, v = (message(field(s) - 250, shortName=n, level=500) for s, n in ((1, "u"), (2, "v")))
    later = message(field(3) - 250, shortName="u", level=500, dataTime=600)
    (tmp_path / "a.grib2").write_bytes(joined(u, v, shared=shared) + later)
    got = opened_as(tmp_path / "a.grib2", variables=["u_component_of_wind"])
    np.testing.assert_allclose(got.u_component_of_wind[:, 0], [field(1) - 250, field(3) - 250], atol=1e-3)
    got = opened_as(tmp_path / "a.grib2", variables=["v_component_of_wind"])
    np.testing.assert_allclose(got.v_component_of_wind[0, 0], field(2) - 250, atol=1e-3)


def test_a_bitmap_holds_for_the_fields_after_it_that_say_so(tmp_path):
    values = field(0)
    values[2:5, 3:9] = np.nan
    first = message(values, shortName="t", level=500)
    second = message(np.where(np.isnan(values), np.nan, values + 5), shortName="t", level=850)
    content = joined(first, second, shared=4, bitmap_of_the_first=True)
    assert len(split_fields(content)) == 2
    (tmp_path / "a.grib2").write_bytes(content)
    got = opened_as(tmp_path / "a.grib2", variables=["temperature"]).temperature[0]
    np.testing.assert_allclose(got, [values, values + 5], atol=1e-3)


@pytest.mark.parametrize(
    ("edition", "flags"),
    [
        (edition, flags)
        for edition in (1, 2)
        for flags in itertools.product((0, 1), repeat=4)
        if edition == 2 or not flags[3]
    ],
)
def test_every_order_of_scanning_gives_the_same_field(tmp_path, edition, flags):
    """WMO flag table 3.4 (edition 1: table 8, which has no alternating rows)."""
    west, south, columns, alternating = flags
    values = field(0)
    laid = values[::-1] if south else values
    laid = laid[:, ::-1] if west else laid
    laid = laid.T.copy() if columns else laid.copy()
    if alternating:
        laid[1::2] = laid[1::2, ::-1]
    keys = {"iScansNegatively": west, "jScansPositively": south, "jPointsAreConsecutive": columns}
    if alternating:
        keys["alternativeRowScanning"] = 1
    first, last = (-90.0, 90.0) if south else (90.0, -90.0)
    keys |= {"latitudeOfFirstGridPointInDegrees": first, "latitudeOfLastGridPointInDegrees": last}
    first, last = (350.0, 0.0) if west else (0.0, 350.0)
    keys |= {"longitudeOfFirstGridPointInDegrees": first, "longitudeOfLastGridPointInDegrees": last}
    (tmp_path / "a.grib").write_bytes(message(laid, edition=edition, shortName="t", level=500, **keys))
    got = opened_as(tmp_path / "a.grib", variables=["temperature"]).temperature[0, 0]
    np.testing.assert_allclose(got, values, atol=1e-3)
    np.testing.assert_allclose(got.longitude, np.arange(NI) * 10.0)
    np.testing.assert_allclose(got.latitude, np.linspace(90, -90, NJ))


def projected(path, grid_type: str, **keys) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """Write 3 x 4 values 0, 1, …; return latitudes, longitudes and values as read, and attributes."""
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("GRIB2")
    eccodes.codes_set(handle, "gridType", grid_type)
    given = {"Nx": 4, "Ny": 3, "dataDate": 20200101, "shapeOfTheEarth": 6} | keys
    for key, value in given.items():
        eccodes.codes_set(handle, key, value)
    for key, value in {"shortName": "u", "typeOfLevel": "isobaricInhPa", "level": 500}.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set(handle, "bitsPerValue", 16)
    eccodes.codes_set_values(handle, np.arange(12.0))
    path.write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    (dataset,) = open_sources(path).datasets
    return (
        dataset.latitude.values,
        dataset.longitude.values,
        dataset["u"].values.squeeze(),
        dataset["u"].attrs,
    )


CONUS = {
    "DxInMetres": 300e3,
    "DyInMetres": 200e3,
    "latitudeOfFirstGridPointInDegrees": 25.0,
    "longitudeOfFirstGridPointInDegrees": 250.0,
    "LoVInDegrees": 262.5,
    "Latin1InDegrees": 38.5,
    "Latin2InDegrees": 38.5,
    "LaDInDegrees": 38.5,
}
RADIUS = 6371229.0


def cone(latitude, longitude):
    """Lambert's conic on a sphere, tangent at 38.5 degrees, in km from its pole: an independent formula."""
    phi, n = np.radians(latitude), np.sin(np.radians(38.5))
    scale = np.cos(np.radians(38.5)) * np.tan(np.pi / 4 + np.radians(38.5) / 2) ** n / n
    rho = RADIUS / 1e3 * scale / np.tan(np.pi / 4 + phi / 2) ** n
    theta = n * np.radians((np.asarray(longitude) - 262.5 + 180) % 360 - 180)
    return rho * np.sin(theta), -rho * np.cos(theta)


@pytest.mark.parametrize(("west", "north"), itertools.product((0, 1), repeat=2))
def test_points_of_a_lambert_grid_are_evenly_spaced_on_its_cone(tmp_path, west, north):
    latitude, longitude, values, attrs = projected(
        tmp_path / "a.grib2",
        "lambert",
        **CONUS,
        iScansNegatively=west,
        jScansPositively=north,
        uvRelativeToGrid=1,
    )
    x, y = cone(latitude, longitude)
    np.testing.assert_allclose(np.diff(x, axis=1), -300.0 if west else 300.0, atol=1e-6)
    np.testing.assert_allclose(np.diff(y, axis=0), 200.0 if north else -200.0, atol=1e-6)
    np.testing.assert_allclose(np.diff(x, axis=0), 0.0, atol=1e-6)
    assert abs(latitude[0, 0] - 25.0) < 1e-9 and abs(longitude[0, 0] % 360 - 250.0) < 1e-9
    np.testing.assert_array_equal(values, np.arange(12).reshape(3, 4))
    assert attrs["GRIB_uvRelativeToGrid"] == 1


@pytest.mark.parametrize("south", [False, True])
def test_points_of_a_polar_stereographic_grid_are_evenly_spaced_on_its_plane(tmp_path, south):
    sign = -1.0 if south else 1.0
    latitude, longitude, _, attrs = projected(
        tmp_path / "a.grib2",
        "polar_stereographic",
        DxInMetres=500e3,
        DyInMetres=400e3,
        latitudeOfFirstGridPointInDegrees=sign * 60.0,
        longitudeOfFirstGridPointInDegrees=10.0,
        orientationOfTheGridInDegrees=350.0,
        LaDInDegrees=sign * 60.0,
        projectionCentreFlag=128 if south else 0,
        jScansPositively=1,
    )
    # On a plane that cuts the sphere at 60 degrees: r = R (1 + sin 60) tan(45 - |latitude| / 2).
    r = RADIUS / 1e3 * (1 + np.sin(np.radians(60))) * np.tan(np.pi / 4 - sign * np.radians(latitude) / 2)
    angle = np.radians(longitude - 350.0)
    x, y = r * np.sin(angle), -sign * r * np.cos(angle)
    np.testing.assert_allclose(np.diff(x, axis=1), 500.0, atol=1e-6)
    np.testing.assert_allclose(np.diff(y, axis=0), 400.0, atol=1e-6)
    assert attrs["GRIB_uvRelativeToGrid"] == 0


def test_a_mercator_grid_keeps_its_axes(tmp_path):
    latitude, longitude, _, _ = projected(
        tmp_path / "a.grib2",
        "mercator",
        DiInMetres=200e3,
        DjInMetres=200e3,
        latitudeOfFirstGridPointInDegrees=10.0,
        longitudeOfFirstGridPointInDegrees=280.0,
        longitudeOfLastGridPointInDegrees=280.0 + np.degrees(600e3 / (RADIUS * np.cos(np.radians(20.0)))),
        LaDInDegrees=20.0,
        jScansPositively=1,
    )
    assert latitude.shape == (3,) and longitude.shape == (4,)
    stretched = np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2))
    np.testing.assert_allclose(np.diff(stretched) * RADIUS * np.cos(np.radians(20.0)), 200e3, atol=1e-3)


def test_points_of_a_rotated_grid_lie_at_their_rotated_distances(tmp_path):
    """The pole and equator of EURO-CORDEX: the rotated system's pole at 39.25 N, 162 W."""
    latitude, longitude, _, _ = projected(
        tmp_path / "a.grib2",
        "rotated_ll",
        latitudeOfFirstGridPointInDegrees=10.0,
        latitudeOfLastGridPointInDegrees=-10.0,
        longitudeOfFirstGridPointInDegrees=350.0,
        longitudeOfLastGridPointInDegrees=20.0,
        latitudeOfSouthernPoleInDegrees=-39.25,
        longitudeOfSouthernPoleInDegrees=18.0,
    )

    def away(lat, lon):
        """Degrees from (latitude, longitude) to all the points, by the spherical law of cosines."""
        a, b = np.radians(lat), np.radians(latitude)
        cosine = np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(np.radians(longitude - lon))
        return np.degrees(np.arccos(np.clip(cosine, -1, 1)))

    rows = np.repeat([10.0, 0.0, -10.0], 4).reshape(3, 4)
    np.testing.assert_allclose(away(39.25, -162.0), 90.0 - rows, atol=1e-6)
    # The rotated origin lies on the meridian of the pole, 90 degrees from it.
    columns = np.tile([-10.0, 0.0, 10.0, 20.0], (3, 1))
    expected = np.degrees(np.arccos(np.cos(np.radians(rows)) * np.cos(np.radians(columns))))
    np.testing.assert_allclose(away(50.75, 18.0), expected, atol=1e-6)
    east = (longitude[1, 2] - longitude[1, 1] + 180) % 360 - 180
    assert east > 0 and latitude[0, 1] > latitude[1, 1]


def test_an_ellipsoid_is_mapped_there_and_back():
    """Snyder's worked examples (pp. 296 and 315): Clarke 1866 with parallels 33 and 45; International 1924."""
    clarke = lambert(Figure(6378206.4, np.sqrt(0.00676866)), -96.0, 33.0, 45.0)
    x, y = clarke.forward(35.0, -75.0)
    assert abs(x - 1894410.9) < 0.1 and abs(y + clarke.figure.radius * 0) > 0
    assert abs((y - clarke.forward(23.0, -96.0)[1]) - 1564649.5) < 0.1
    np.testing.assert_allclose(clarke.inverse(np.array([x]), np.array([y])), [[35.0], [-75.0]], atol=1e-9)
    hayford = polar_stereographic(Figure(6378388.0, np.sqrt(0.00672267)), -100.0, -71.0, south=True)
    x, y = hayford.forward(-75.0, 150.0)
    assert abs(x + 1540033.6) < 0.2 and abs(y + 560526.4) < 0.2


@pytest.mark.parametrize("edition", [1, 2])
def test_steps_in_minutes_and_starts_between_hours(tmp_path, edition):
    unit = "unitOfTimeRange" if edition == 1 else "indicatorOfUnitOfTimeRange"
    step = "P1" if edition == 1 else "forecastTime"
    keys = {unit: 0, "dataTime": 30, "edition": edition, "shortName": "t", "level": 500}
    content = [message(field(m), **keys, **{step: m}) for m in (0, 15, 105)]
    (tmp_path / "a.grib").write_bytes(b"".join(content))
    times = opened_as(tmp_path / "a.grib", variables=["temperature"]).time.values
    assert [str(t)[11:16] for t in times] == ["00:30", "00:45", "02:15"]


@pytest.mark.parametrize("edition", [1, 2])
@pytest.mark.parametrize(
    ("unit", "expected"), [(3, ["2020-02-01", "2020-03-01"]), (4, ["2021-01-01", "2022-01-01"])]
)
def test_steps_in_months_and_years_follow_the_calendar(tmp_path, edition, unit, expected):
    keys = ("unitOfTimeRange", "P1") if edition == 1 else ("indicatorOfUnitOfTimeRange", "forecastTime")
    content = [
        message(
            field(n), edition=edition, shortName="t", level=500, **dict(zip(keys, (unit, n), strict=True))
        )
        for n in (1, 2)
    ]
    (tmp_path / "a.grib").write_bytes(b"".join(content))
    times = opened_as(tmp_path / "a.grib", variables=["temperature"]).time.values
    assert [str(time)[:13] for time in times] == [f"{date}T00" for date in expected]


def test_steps_in_months_without_a_date_are_refused(tmp_path):
    keys = {"shortName": "t", "level": 500, "dataDate": 20200131, "indicatorOfUnitOfTimeRange": 3}
    (tmp_path / "b.grib2").write_bytes(message(field(0), **keys, forecastTime=0))
    assert str(opened_as(tmp_path / "b.grib2", variables=["temperature"]).time.values[0])[:10] == "2020-01-31"
    (tmp_path / "a.grib2").write_bytes(message(field(0), **keys, forecastTime=1))
    with pytest.raises(CoordinateError, match="months or years that are not whole"):
        opened_as(tmp_path / "a.grib2", variables=["temperature"])


def test_constant_fields_with_and_without_missing_values(tmp_path):
    values = np.full((NJ, NI), 7.5)
    holed = values.copy()
    holed[:4] = np.nan
    content = [message(v, shortName="t", level=p, bits=0) for v, p in ((values, 500), (holed, 850))]
    (tmp_path / "a.grib").write_bytes(b"".join(content))
    got = opened_as(tmp_path / "a.grib", variables=["temperature"]).temperature[0]
    np.testing.assert_array_equal(got, [values, holed])


def test_messages_on_grids_that_cannot_be_used_are_told_beside_those_that_can(tmp_path):
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("sh_pl_grib2")
    harmonic = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    (tmp_path / "a.grib").write_bytes(harmonic + message(field(1), shortName="t", level=500) + harmonic)
    (dataset,) = open_sources(tmp_path / "a.grib").datasets
    (finding,) = attached(dataset)
    assert "spherical harmonics: 2 messages are passed over" in finding.message and "sp2gp" in finding.remedy
    (tmp_path / "b.grib").write_bytes(harmonic)
    with pytest.raises(UnreadableSourceError, match="spherical harmonics"):
        open_sources(tmp_path)
