from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import CoordinateError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.grid_angles import AxisDirections, formula_angle, grid_angle, wrapped
from weathermill.fields.grids import named_grid
from weathermill.fields.overview import overview
from weathermill.fields.regridding import apply_weights, make_weights
from weathermill.fields.wind_statements import said_axes

TIMES = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
NAMES = ("10m_u_component_of_wind", "10m_v_component_of_wind")


def rotated(latitude, longitude, pole_latitude, pole_longitude):
    """Return true latitude, longitude of rotated ones, and the unit vectors of the rotated axes in true east and north.

    By two rotations of the sphere in three dimensions, of positions and axes alike (no formula of angles).
    """
    phi, lam = np.radians(latitude), np.radians(longitude)
    tilt, turn = np.radians(90.0 - pole_latitude), np.radians(pole_longitude + 180.0)
    about_y = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]]).T
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    whole = about_z @ about_y
    zero = np.zeros_like(phi)
    point = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], -1) @ whole.T
    x = np.stack([-np.sin(lam), np.cos(lam), zero], -1) @ whole.T
    y = np.stack([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)], -1) @ whole.T
    lat, lon = np.arcsin(np.clip(point[..., 2], -1, 1)), np.arctan2(point[..., 1], point[..., 0])
    east = np.stack([-np.sin(lon), np.cos(lon), zero], -1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], -1)
    project = lambda a, b: np.einsum("...k,...k->...", a, b)  # noqa: E731
    axes = np.stack([project(x, east), project(x, north), project(y, east), project(y, north)])
    return np.degrees(lat), np.degrees(lon), axes


def winds(latitude, longitude):
    """Return a solid-body rotation about a slanted axis, and its mirror image at each next time, true (time, u, v)."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    u = 20 * np.cos(phi) + 10 * np.sin(phi) * np.cos(lam)
    v = -10 * np.sin(lam)
    return np.stack([u, -u, 0.5 * u]), np.stack([v, v, -v])


def source(
    n=13,
    m=17,
    step=2.0,
    pole=(39.25, -162.0),
    *,
    standard_names=("grid_eastward_wind", "grid_northward_wind"),
):
    """Return a file as CORDEX has them: winds along a rotated grid that holds the true winds of `winds`."""
    rlat, rlon = step * (np.arange(n) - n // 2), step * (np.arange(m) - m // 2)
    lat, lon, axes = rotated(*np.meshgrid(rlat, rlon, indexing="ij"), *pole)
    u, v = winds(lat, lon)
    x, y = u * axes[0] + v * axes[1], u * axes[2] + v * axes[3]
    ds = xr.Dataset(coords={"time": TIMES})
    for name, values, standard_name in zip(("uas", "vas"), (x, y), standard_names, strict=True):
        ds[name] = (("time", "rlat", "rlon"), values.astype(np.float32), {"units": "m s-1"})
        ds[name].attrs |= {"standard_name": standard_name} if standard_name else {}
        ds[name].attrs["grid_mapping"] = "rotated_pole"
    ds["rotated_pole"] = ((), 0, mapping(*pole))
    return ds.assign_coords(
        rlat=("rlat", rlat, {"standard_name": "grid_latitude", "units": "degrees"}),
        rlon=("rlon", rlon, {"standard_name": "grid_longitude", "units": "degrees"}),
        lat=(("rlat", "rlon"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
        lon=(("rlat", "rlon"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
    )


def mapping(latitude, longitude):
    return {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": latitude,
        "grid_north_pole_longitude": longitude,
    }


def canonical(*sources, names=NAMES, **options):
    return canonicalise(list(sources), surface_variables=list(names), **options)


def error_of(fields) -> float:
    u, v = winds(fields.latitude.values, fields.longitude.values)
    return max(
        float(np.abs(fields[name].values - true).max()) for name, true in zip(NAMES, (u, v), strict=True)
    )


# The first grid holds the geographic pole as a point, the second crosses the date line, the third lies in the south.
@pytest.mark.parametrize("pole", [(2.0, 100.0), (39.25, 18.0), (-40.0, 30.0)])
@pytest.mark.parametrize("known", [True, False])
def test_winds_along_rotated_axes_come_back_to_east_and_north(pole, known):
    ds = source(pole=pole, n=45, m=33) if pole[0] == 2.0 else source(pole=pole)
    if not known:
        ds = ds.drop_vars("rotated_pole")
    findings = []
    fields = canonical(ds, findings=findings)
    assert fields[NAMES[0]].chunks is not None and fields[NAMES[0]].dtype == np.float32
    assert error_of(fields) < (1e-5 if known else 2e-4)
    speed = np.hypot(ds["uas"], ds["vas"]).values
    assert np.allclose(np.hypot(fields[NAMES[0]], fields[NAMES[1]]), speed, rtol=1e-6)
    told = [
        f for f in findings if "turned, with 10m_v_component_of_wind, from the axes of the grid" in f.message
    ]
    assert len(told) == 1 and "standard name grid_eastward_wind" in told[0].message
    assert "turned" in fields[NAMES[1]].attrs["comment"]


def test_differences_along_rows_agree_with_the_formula_to_fourth_order():
    errors = []
    for step in (2.0, 1.0):
        ds = source(n=41, m=41, step=step, pole=(39.25, -162.0))
        lat, lon = ds["lat"].values, ds["lon"].values
        exact = formula_angle(mapping(39.25, -162.0), lat, lon)
        errors.append(np.abs(wrapped(grid_angle(lat, lon) - exact)).max())
    assert errors[1] < 2e-7 and errors[0] / errors[1] > 10


def test_coordinates_in_float32_of_a_fine_grid_and_small_grids():
    lat, lon, attrs = lambert(n=61, m=61, step=3e3)
    exact = formula_angle(attrs, lat, lon)
    rounded = [a.astype(np.float32).astype(np.float64) for a in (lat, lon)]
    assert np.abs(grid_angle(*rounded) - exact).max() < 2e-4
    for n in (2, 3, 5, 6):
        few = lat[:n, :n], lon[:n, :n]
        assert np.abs(grid_angle(*few) - exact[:n, :n]).max() < (2e-4 if n == 2 else 1e-6), n


def lambert(
    kind="lambert_conformal_conic", lat0=38.5, lon0=-97.5, lat1=38.5, lat2=None, n=15, m=21, step=100e3
):
    """Return latitudes, longitudes and a CF grid mapping of a spherical conformal grid (Snyder, 1987)."""
    radius = 6371229.0
    x, y = np.meshgrid(step * (np.arange(m) - m // 2), step * (np.arange(n) - n // 2))
    if kind == "polar_stereographic":
        sign = np.sign(lat0)
        rho = np.hypot(x, y)
        lat = sign * (90 - np.degrees(2 * np.arctan(rho / (2 * radius))))
        lon = lon0 + np.degrees(np.arctan2(x, -sign * y))
        attrs = {"latitude_of_projection_origin": lat0, "straight_vertical_longitude_from_pole": lon0}
    elif kind == "mercator":
        lon = lon0 + np.degrees(x / radius)
        lat = np.degrees(2 * np.arctan(np.exp(y / radius)) - np.pi / 2) + 0 * x
        attrs = {"longitude_of_projection_origin": lon0}
    else:
        tangent = lambda a: np.tan(np.pi / 4 + np.radians(a) / 2)  # noqa: E731
        cone = np.sin(np.radians(lat1))
        if lat2 is not None:
            cone = np.log(np.cos(np.radians(lat1)) / np.cos(np.radians(lat2))) / np.log(
                tangent(lat2) / tangent(lat1)
            )
        scale = radius * np.cos(np.radians(lat1)) * tangent(lat1) ** cone / cone
        origin = scale / tangent(lat0) ** cone
        rho = np.sign(cone) * np.hypot(x, origin - y)
        lon = lon0 + np.degrees(np.arctan2(np.sign(cone) * x, np.sign(cone) * (origin - y)) / cone)
        lat = np.degrees(2 * np.arctan((scale / rho) ** (1 / cone)) - np.pi / 2)
        parallels = lat1 if lat2 is None else [lat1, lat2]
        attrs = {"standard_parallel": parallels, "longitude_of_central_meridian": lon0}
    return lat, (lon + 180) % 360 - 180, {"grid_mapping_name": kind} | attrs


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"lat1": 30.0, "lat2": 60.0, "lon0": 178.0},
        {"lat0": -50.0, "lat1": -30.0, "lat2": -60.0},
        {"kind": "polar_stereographic", "lat0": 90.0, "lon0": 150.0},
        {"kind": "polar_stereographic", "lat0": -90.0},
        {"kind": "mercator"},
    ],
)
def test_conformal_grids_by_formula_and_by_differences(arguments):
    lat, lon, attrs = lambert(**arguments)
    exact = formula_angle(attrs, lat, lon)
    by_differences = grid_angle(lat, lon)
    # A stereographic grid holds the pole, next to which a longitude says little.
    assert np.abs(wrapped(by_differences - exact)).max() < 2e-6
    assert np.array_equal(grid_angle(lat, lon, AxisDirections(), attrs), exact)


def test_a_wind_to_the_east_everywhere_on_a_lambert_grid_as_a_grib_reader_gives_it():
    lat, lon, _ = lambert()
    theta = np.sin(np.radians(38.5)) * np.radians(lon + 97.5)
    ds = xr.Dataset(coords={"time": TIMES, "latitude": (("y", "x"), lat), "longitude": (("y", "x"), lon)})
    # Readers of GRIB call each u eastward; the flag alone says what it is (the formula is that of the HRRR's pages).
    for name, values, standard_name in (
        ("u10", np.cos(theta), "eastward_wind"),
        ("v10", np.sin(theta), "northward_wind"),
    ):
        said = {"units": "m s-1", "standard_name": standard_name, "GRIB_uvRelativeToGrid": 1}
        ds[name] = (
            ("time", "y", "x"),
            np.broadcast_to(10 * values, (3, *lat.shape)).astype(np.float32),
            said,
        )
    ds["u10"][1, 4, 5] = np.nan
    upside_down = ds.isel(y=slice(None, None, -1))
    for case, flip in ((ds, 1), (upside_down, -1), (ds.transpose("x", "y", "time"), 1)):
        fields = canonical(case)
        u, v = (fields[name].values[:, ::flip] for name in NAMES)
        if case.sizes != ds.sizes or case["u10"].dims[0] == "x":
            u, v = (a.transpose(0, 2, 1) for a in (u, v))
        missing = np.zeros(u.shape, bool)
        missing[1, 4, 5] = True
        assert np.array_equal(np.isnan(u), missing) and np.array_equal(np.isnan(v), missing)
        assert np.nanmax(np.abs(u - 10)) < 1e-5 and np.nanmax(np.abs(v)) < 1e-5
    ds["u10"].attrs["GRIB_uvRelativeToGrid"] = ds["v10"].attrs["GRIB_uvRelativeToGrid"] = 0
    assert np.array_equal(canonical(ds)[NAMES[1]], ds["v10"])


def test_a_falling_x_coordinate_and_turned_dimensions():
    ds = source()
    expected = canonical(ds)
    mirrored = ds.isel(rlon=slice(None, None, -1), rlat=slice(None, None, -1))
    assert np.allclose(canonical(mirrored)[NAMES[0]][:, ::-1, ::-1], expected[NAMES[0]], atol=1e-5)
    turned = ds.transpose("rlon", "rlat", "time")
    assert np.allclose(canonical(turned)[NAMES[1]].values.transpose(0, 2, 1), expected[NAMES[1]], atol=1e-5)
    unnamed = ds.drop_vars(["rlat", "rlon", "rotated_pole"]).rename_dims(rlat="a", rlon="b")
    assert np.allclose(canonical(unnamed)[NAMES[0]], expected[NAMES[0]], atol=2e-4)
    with pytest.raises(CoordinateError, match="nothing says which dimension of the grid is its x axis"):
        canonical(unnamed.isel(a=slice(None, None, -1)))


def test_one_component_is_asked_for_and_the_other_lies_in_another_file():
    ds = source()
    alone = [ds.drop_vars("uas"), ds.drop_vars("vas")]
    fields = canonical(*alone, names=NAMES[1:])
    assert list(fields.data_vars) == [NAMES[1]]
    assert np.array_equal(fields[NAMES[1]], canonical(ds)[NAMES[1]])
    with pytest.raises(CoordinateError, match="needs 10m_u_component_of_wind, which no source has") as caught:
        canonical(alone[0], names=NAMES[1:])
    assert "Add the file that holds 10m_u_component_of_wind" in caught.value.remedy


def test_winds_on_levels_with_the_names_of_a_model():
    ds = source(standard_names=("x_wind", "y_wind")).rename(uas="x_wind", vas="y_wind")
    ds = ds.expand_dims(pressure=[850.0, 500.0]).transpose("time", ...)
    ds["pressure"].attrs["units"] = "hPa"
    fields = canonicalise([ds], variables=["v_component_of_wind"])
    u, v = winds(fields.latitude.values, fields.longitude.values)
    assert np.allclose(fields.v_component_of_wind, v[:, None], atol=1e-5)
    flat = canonicalise([ds], variables=["u_component_of_wind_500"])
    assert np.allclose(flat.u_component_of_wind_500, u, atol=1e-5)


def test_wind_speed_is_the_same_along_any_axes():
    ds = source()
    fields = canonical(ds, names=["10m_wind_speed"])
    assert np.allclose(fields["10m_wind_speed"], np.hypot(ds["uas"], ds["vas"]), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ds: ds.drop_attrs(deep=False), "nothing says which"),
        (
            lambda ds: ds["uas"].attrs.update(
                standard_name="eastward_wind", long_name="u relative to the model grid"
            ),
            "contradicts itself",
        ),
        (lambda ds: ds["vas"].attrs.update(standard_name="northward_wind"), "lies to east and north already"),
        (
            lambda ds: ds["rotated_pole"].attrs.update(mapping(60.0, 0.0)),
            "contradicts latitude and longitude",
        ),
        (lambda ds: ds["lon"].values.__iadd__(0.3 * ds["lat"].values), "not perpendicular"),
    ],
)
def test_winds_that_cannot_be_turned_are_refused_and_never_relabelled(change, said):
    ds = source(standard_names=("", "")) if said == "nothing says which" else source()
    change(ds)
    if said == "not perpendicular":
        ds = ds.drop_vars("rotated_pole")
    with pytest.raises(CoordinateError, match=said) as caught:
        canonical(ds)
    assert caught.value.remedy
    held = overview([ds], ["x.nc"])
    assert all(said in v.problems[0] for v in held.variables if v.name == NAMES[0])
    assert held.parameters()["surface_variables"] == []
    assert any(f.subject == NAMES[0] and said in f.message and f.remedy for f in held.findings)


def test_winds_of_a_grid_whose_rows_run_east_need_no_statement(make_source):
    ds = make_source(levels=None, names=("uas", "vas"), units="m s-1", base=0.0).isel(latitude=slice(1, -1))
    lat, lon = xr.broadcast(ds["latitude"], ds["longitude"])
    ds = ds.drop_vars(["latitude", "longitude"]).rename_dims(latitude="y", longitude="x")
    ds = ds.assign_coords(lat=(("y", "x"), lat.values), lon=(("y", "x"), lon.values))
    fields = canonical(ds)
    assert fields.latitude.ndim == 2 and np.array_equal(fields[NAMES[1]], ds["vas"])


@pytest.mark.parametrize("staggered", [0.5, 0.0])
def test_components_on_different_points_are_refused(staggered):
    ds = source()
    u, v = ds.drop_vars("vas"), ds.drop_vars("uas")
    v["lat"], v["lon"] = v["lat"] + staggered, v["lon"] + staggered
    if staggered:
        with pytest.raises(CoordinateError, match="the grid is staggered"):
            canonical(u, v)
    else:
        assert error_of(canonical(u, v)) < 1e-5


def test_a_source_that_says_nothing_beside_one_that_does_is_not_left_out_silently():
    first, second = source(), source(standard_names=("", ""))
    second["time"] = second["time"] + np.timedelta64(1, "D")
    with pytest.raises(CoordinateError, match="nothing says which"):
        canonical(first, second)
    second = source(standard_names=("eastward_wind", "northward_wind"))
    second["time"] = second["time"] + np.timedelta64(1, "D")
    with pytest.raises(CoordinateError, match="in one source, and to east and north in another"):
        canonical(first, second)


def test_a_parameter_says_along_which_axes_winds_lie():
    silent, wrong = (
        source(standard_names=("", "")),
        source(standard_names=("eastward_wind", "northward_wind")),
    )
    for ds in (silent, wrong):
        assert error_of(canonical(ds, winds="grid")) < 1e-5
        assert np.array_equal(canonical(ds, winds="east_and_north")[NAMES[0]], ds["uas"])


def test_winds_to_east_and_north_go_before_those_along_the_grid_in_one_file():
    ds = source()
    lat, lon = ds["lat"].values, ds["lon"].values
    for name, values, standard_name in zip(
        ("u10", "v10"), winds(lat, lon), ("eastward_wind", "northward_wind"), strict=True
    ):
        said = {"units": "m s-1", "standard_name": standard_name}
        ds[name] = (("time", "rlat", "rlon"), values.astype(np.float32), said)
    findings = []
    assert np.array_equal(canonical(ds, findings=findings)[NAMES[0]], ds["u10"])
    assert sum("is passed over: u10 lies to east and north" in f.message for f in findings) == 1


def test_vectors_outside_the_vocabulary_along_a_grid_are_refused():
    ds = source(standard_names=("surface_downward_x_stress", "surface_downward_y_stress")).rename(
        uas="tauu", vas="tauv"
    )
    with pytest.raises(CoordinateError, match="only winds that the vocabulary knows are turned"):
        canonical(ds, names=["tauu"])
    said = {"long_name": "200 metre U wind component", "units": "m s-1", "GRIB_uvRelativeToGrid": 1}
    gust = {"long_name": "10 metre wind gust", "units": "m s-1", "GRIB_uvRelativeToGrid": 1}
    ds = ds.assign(
        u200=ds["tauu"].assign_attrs(said, standard_name=""),
        gust=ds["tauv"].assign_attrs(gust, standard_name=""),
    )
    with pytest.raises(CoordinateError, match="only winds that the vocabulary knows are turned"):
        canonical(ds, names=["u200"])
    assert np.array_equal(canonical(ds, names=["gust"])["gust"], ds["gust"])


def test_axes_of_a_latitude_longitude_grid_are_east_and_north_already(make_source):
    ds = make_source(levels=None, names=("uas", "vas"), units="m s-1", base=0.0)
    for name, standard_name in (("uas", "x_wind"), ("vas", "grid_northward_wind")):
        ds[name].attrs |= {"standard_name": standard_name, "GRIB_uvRelativeToGrid": 1}
    findings = []
    fields = canonical(ds, findings=findings)
    assert np.array_equal(fields[NAMES[0]], ds["uas"]) and not any("turned" in f.message for f in findings)
    ds["uas"].attrs["grid_mapping"] = "rotated_pole"
    ds["rotated_pole"] = ((), 0, mapping(39.25, -162.0))
    with pytest.raises(CoordinateError, match="said to have a rotated pole"):
        canonical(ds)


def wrf():
    """Return winds to the east of 10 m/s in the layout of WRF's output: coordinates at each time, no standard names."""
    lat, lon, _ = lambert(n=8, m=9, step=3e4)
    theta = np.sin(np.radians(38.5)) * np.radians(lon + 97.5)
    ds = xr.Dataset(
        coords={"XTIME": ("Time", TIMES)}, attrs={"TITLE": " OUTPUT FROM WRF V4.3 MODEL", "MAP_PROJ": 1}
    )
    for name, values in (
        ("U10", 10 * np.cos(theta)),
        ("V10", 10 * np.sin(theta)),
        ("XLAT", lat),
        ("XLONG", lon),
    ):
        units = {"XLAT": "degree_north", "XLONG": "degree_east"}.get(name, "m s-1")
        ds[name] = (
            ("Time", "south_north", "west_east"),
            np.stack([values] * 3).astype(np.float32),
            {"units": units},
        )
    return ds.set_coords(["XLAT", "XLONG"])


def test_output_of_wrf_with_coordinates_at_each_time():
    fields = canonical(wrf())
    assert fields[NAMES[0]].dims == ("time", "y", "x")
    assert np.allclose(fields[NAMES[0]], 10, atol=2e-3) and np.allclose(fields[NAMES[1]], 0, atol=2e-3)
    moving = wrf()
    moving["XLONG"][2] += 0.1
    with pytest.raises(CoordinateError, match="XLONG changes along Time: the grid moves"):
        canonical(moving)


@pytest.mark.parametrize(
    ("name", "attrs", "file", "axes"),
    [
        ("U10", {"description": "U at 10 M"}, {"TITLE": " OUTPUT FROM WRF V4.3 MODEL"}, "grid"),
        (
            "U10",
            {"description": "10m wind, earth rotated"},
            {"TITLE": " OUTPUT FROM WRF V4.3 MODEL"},
            "east_and_north",
        ),
        ("U10", {"description": "U at 10 M"}, {}, None),
        ("uas", {"standard_name": "eastward_wind"}, {}, "east_and_north"),
        ("uas", {"standard_name": "x_wind"}, {}, "grid"),
        ("uas", {"long_name": "Eastward Near-Surface Wind"}, {}, "east_and_north"),
        ("uas", {"long_name": "Grid-eastward wind"}, {}, "grid"),
        ("uas", {"comment": "along the x axis of the model grid"}, {}, "grid"),
        ("u", {"GRIB_resolutionAndComponentFlags": 56, "standard_name": "eastward_wind"}, {}, "grid"),
        ("u", {"GRIB_resolutionAndComponentFlags": 48}, {}, "east_and_north"),
        ("u", {"long_name": "U component of wind"}, {}, None),
        ("x_wind_10m", {}, {}, "grid"),
        ("uas", {"standard_name": "x_wind", "long_name": "Eastward wind"}, {}, "both"),
    ],
)
def test_what_says_along_which_axes_a_wind_lies(name, attrs, file, axes):
    assert said_axes(xr.DataArray(np.zeros(1), name=name, attrs=attrs), file, name)[0] == axes


def test_turned_winds_are_regridded_as_true_ones():
    ds = source(n=41, m=41, step=1.0)
    fields = canonical(ds)
    target = named_grid({"latitude": [60, 42], "longitude": [6, 30], "step": 2})
    out = apply_weights(fields, make_weights(fields, target, "bilinear"))
    u, _ = winds(*np.meshgrid(target.latitude, target.longitude, indexing="ij"))
    assert np.nanmax(np.abs(out[NAMES[0]] - u)) < 0.02 and not np.isnan(out[NAMES[0]]).any()


def test_winds_of_a_grid_over_the_pole_are_regridded_as_vectors_or_told():
    # The rotation alone: its mirror images are torn at the pole.
    fields = canonical(source(pole=(0.0, 100.0), n=41, m=41, step=1.0).isel(time=[0]))
    target = named_grid({"latitude": [89, 75], "longitude": [0, 350], "step": [2, 10]})
    weights = make_weights(fields, target, "bilinear")
    u, v = winds(*np.meshgrid(target.latitude, target.longitude, indexing="ij"))
    worst = {}
    for vectors in (False, True):
        findings = []
        out = apply_weights(fields, weights, vectors=vectors, findings=findings)
        worst[vectors] = max(
            float(np.abs(out[name][0] - true[0]).max()) for name, true in zip(NAMES, (u, v), strict=True)
        )
        assert any("covers a pole" in f.message for f in findings) is not vectors
    assert worst[True] < 0.02 and worst[False] > 1.0
    findings = []
    away = canonical(source(n=41, m=41, step=1.0))
    box = named_grid({"latitude": [60, 42], "longitude": [6, 30], "step": 2})
    apply_weights(away, make_weights(away, box, "bilinear"), findings=findings)
    assert not findings


@pytest.mark.parametrize("known", [True, False])
def test_angles_at_the_pole_of_a_rotated_grid_itself(known):
    grid = np.meshgrid(np.arange(80.0, 91.0), np.arange(0.0, 90.0, 2.0), indexing="ij")
    lat, lon, axes = rotated(*grid, 39.25, -162.0)
    angle = grid_angle(lat, lon, None, mapping(39.25, -162.0) if known else None)
    assert np.abs(wrapped(angle - np.arctan2(axes[1], axes[0]))).max() < 1e-5


def test_fields_on_maps_half_a_step_apart_are_not_on_one_grid():
    ds = source(n=8, m=8, step=1e-3).rename(uas="tas", vas="ps")
    ds["tas"].attrs, ds["ps"].attrs = {"units": "K"}, {"units": "Pa"}
    other = ds.drop_vars("tas")
    other["lat"] = other["lat"] + 5e-4
    with pytest.raises(CoordinateError, match="different grids"):
        canonical(ds.drop_vars("ps"), other, names=["2m_temperature", "surface_pressure"])
