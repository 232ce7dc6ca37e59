from __future__ import annotations

import cftime
import dask
import numpy as np
import pytest
import xarray as xr

from weathermill.errors import (
    CoordinateError,
    EmptySelectionError,
    MissingLevelError,
    MissingVariableError,
    ParameterError,
    TimeAxisError,
    UnitsError,
)
from weathermill.fields.conventions import canonicalise
from weathermill.fields.findings import Finding
from weathermill.fields.grids import named_grid
from weathermill.fields.inspection import inspect
from weathermill.fields.opening import open_sources
from weathermill.fields.regridding import apply_weights, make_weights


def canonical(sources, **options) -> xr.Dataset:
    return canonicalise(sources if isinstance(sources, list) else [sources], **options)


def assert_canonical(fields: xr.Dataset) -> None:
    assert set(map(str, fields.dims)) <= {"time", "level", "latitude", "longitude"}
    assert np.all(np.diff(fields.latitude) < 0) and np.all(np.diff(fields.longitude) > 0)
    if "level" in fields.dims:
        assert np.all(np.diff(fields.level) > 0)
    for name in fields.data_vars:
        variable = fields[name]
        assert variable.dtype == np.float32
        assert dask.is_dask_collection(variable)
        assert variable.attrs["units"]
        for dim in ("level", "latitude", "longitude"):
            if dim in variable.dims:
                assert len(variable.chunksizes[dim]) == 1


# Layouts: real files, or faithful reproductions


def test_new_cds_layout_keeps_every_bit(layouts):
    raw = xr.open_dataset(layouts / "cds_new_pl_realERA5.nc")
    fields = canonical(raw, variables=["geopotential", "temperature"])
    assert_canonical(fields)
    assert fields.level.values.tolist() == [500.0, 850.0]
    assert np.array_equal(fields.temperature.sel(level=850), raw["t"].sel(pressure_level=850))
    assert np.array_equal(fields.geopotential.sel(level=500), raw["z"].sel(pressure_level=500))
    assert fields.geopotential.attrs == {
        "long_name": "Geopotential",
        "units": "m2 s-2",
        "standard_name": "geopotential",
    }


def test_old_packed_layout_agrees_with_the_new_one_within_its_packing(layouts):
    names = {"variables": ["geopotential", "temperature"]}
    raw = xr.open_dataset(layouts / "cds_old_packed_pl_realERA5.nc")
    old, new = (
        canonical(raw, **names),
        canonical(xr.open_dataset(layouts / "cds_new_pl_realERA5.nc"), **names),
    )
    assert_canonical(old)
    xr.testing.assert_equal(old.coords.to_dataset(), new.coords.to_dataset())
    for name, short in (("geopotential", "z"), ("temperature", "t")):
        step = raw[short].encoding["scale_factor"]
        rounding = float(np.spacing(np.float32(np.abs(new[name]).max())))
        assert float(np.abs(old[name] - new[name]).max()) <= 0.5 * step + rounding


def test_expver_dimension_is_merged(layouts):
    raw = xr.open_dataset(layouts / "cds_old_expver_dim.nc")
    fields = canonical(raw, surface_variables=["2m_temperature"])
    assert_canonical(fields)
    assert not fields["2m_temperature"].isnull().any()
    expected = raw["t2m"].sel(expver=1).fillna(raw["t2m"].sel(expver=5))
    assert np.array_equal(fields["2m_temperature"], expected.astype(np.float32))


def test_ecmwf_series_without_any_attribute(ecmwf_path):
    findings: list[Finding] = []
    raw = xr.open_dataset(ecmwf_path)
    names = ["temperature", "relative_humidity", "u_component_of_wind", "v_component_of_wind", "geopotential"]
    fields = canonical(raw, variables=names, findings=findings)
    assert_canonical(fields)
    assert list(fields.data_vars) == names
    assert fields.level.values.tolist() == [300.0, 400.0, 500.0, 700.0, 850.0, 1000.0]
    assert np.array_equal(fields.relative_humidity.sel(level=700), raw["r"].sel(level=700))
    assert {f.subject for f in findings if f.severity == "warning"} == set(names)


def test_files_whose_variables_carry_their_level(make_source):
    source = make_source(levels=None, names=("temperature_500", "temperature_850", "t2m"))
    source["temperature_850"] += 20.0
    fields = canonical(source, variables=["temperature"], surface_variables=["2m_temperature"])
    assert_canonical(fields)
    assert fields.temperature.dims == ("time", "level", "latitude", "longitude")
    assert np.array_equal(fields.temperature.sel(level=850), source["temperature_850"])
    flat = canonical(source, variables=["temperature_850"], surface_variables=["2m_temperature"])
    assert flat["temperature_850"].dims == ("time", "latitude", "longitude")
    assert np.array_equal(flat["temperature_850"], source["temperature_850"])
    assert flat["temperature_850"].attrs["long_name"] == "Temperature at 850 hPa"
    with pytest.raises(
        MissingLevelError, match="temperature has no level 700 hPa; it is offered at 500, 850"
    ):
        canonical(source, variables=["temperature_700"])


def test_one_level_of_a_variable_can_be_asked_for_by_name(make_source):
    source = make_source()
    fields = canonical(source, surface_variables=["temperature_500"])
    assert np.array_equal(fields["temperature_500"], source["t"].sel(level=500))


def test_weatherbench_order_of_dimensions_and_latitudes(make_source):
    source = make_source()
    turned = source.isel(latitude=slice(None, None, -1)).transpose("time", "level", "longitude", "latitude")
    xr.testing.assert_equal(
        canonical(turned, variables=["temperature"]), canonical(source, variables=["temperature"])
    )


def test_arco_time_axis_counts_only_between_its_attributes(make_source):
    source = make_source(n_time=40, step_hours=6)
    source.attrs = {"valid_time_start": "2020-01-03", "valid_time_stop": "2020-01-05"}
    fields = canonical(source, variables=["temperature"])
    assert str(fields.time.values[0])[:13] == "2020-01-03T00"
    assert str(fields.time.values[-1])[:13] == "2020-01-05T18"


def test_cmip_layout(make_source):
    source = make_source(names=("ta",), levels=(85000.0, 50000.0)).rename(level="plev")
    source["plev"].attrs = {"units": "Pa", "standard_name": "air_pressure", "bounds": "plev_bnds"}
    source["plev_bnds"] = (("plev", "bnds"), np.zeros((2, 2)))
    source["ta"][0, 0, 0, 0] = 1e20
    source["ta"][0, 0, 0, 1] = 9.96921e36
    source = source.assign_coords(height=((), 2.0, {"units": "m", "standard_name": "height"}))
    times = xr.date_range("2020-02-27", periods=6, freq="D", calendar="noleap", use_cftime=True)
    fields = canonical(source.assign_coords(time=times), variables=["temperature"])
    assert fields.level.values.tolist() == [500.0, 850.0]
    assert int(fields.temperature.isnull().sum()) == 2
    assert isinstance(fields.time.values[0], cftime.DatetimeNoLeap)
    assert [t.day for t in fields.time.values[:4]] == [27, 28, 1, 2]


# Traits that break naive code


@pytest.mark.parametrize("shift", [-180.0, 20.0, 17.5])
def test_longitudes_come_to_0_to_360(make_source, shift):
    source = make_source()
    expected = canonical(source, variables=["temperature"])
    if shift == 17.5:
        source = source.assign_coords(longitude=source.longitude + shift)
        fields = canonical(source, variables=["temperature"])
        assert fields.longitude.values[0] == 17.5 and np.array_equal(fields.temperature, expected.temperature)
        return
    turned = source.assign_coords(longitude=(source.longitude - shift) % 360 + shift).sortby("longitude")
    assert turned.longitude.values[0] >= shift and not np.array_equal(turned.longitude, source.longitude)
    xr.testing.assert_equal(canonical(turned, variables=["temperature"]), expected)


def test_a_region_across_greenwich_keeps_together(make_source):
    source = make_source(n_lon=36)
    region = source.isel(longitude=[34, 35, 0, 1, 2])
    fields = canonical(region, variables=["temperature"])
    assert fields.longitude.values.tolist() == [-20.0, -10.0, 0.0, 10.0, 20.0]
    assert np.array_equal(fields.temperature, region["t"])


def test_a_duplicated_meridian_is_dropped_and_told(make_source):
    source = make_source()
    again = source.isel(longitude=[0]).assign_coords(longitude=[360.0])
    findings: list[Finding] = []
    fields = canonical(xr.concat([source, again], "longitude"), variables=["temperature"], findings=findings)
    xr.testing.assert_equal(fields, canonical(source, variables=["temperature"]))
    assert any("repeats the meridian 360" in f.message for f in findings)


def test_scalar_time_and_absent_time(make_source):
    source = make_source()
    one = canonical(source.isel(time=2), variables=["temperature"])
    assert one.sizes["time"] == 1 and one.time.values[0] == source.time.values[2]
    static = source.isel(time=0, level=0, drop=True).rename(t="lsm")
    static["lsm"].attrs["units"] = "(0 - 1)"
    fields = canonical([source, static], variables=["temperature"], static_variables=["land_sea_mask"])
    assert fields["land_sea_mask"].dims == ("latitude", "longitude")
    with pytest.raises(CoordinateError, match="has no time"):
        canonical(source.isel(time=0, drop=True), variables=["temperature"])


def test_big_endian_and_odd_types(make_source):
    source = make_source()
    expected = canonical(source, variables=["temperature"])
    xr.testing.assert_equal(canonical(source.astype(">f4"), variables=["temperature"]), expected)
    xr.testing.assert_equal(canonical(source.astype("f8"), variables=["temperature"]), expected)
    whole = np.round(source).astype(np.int32).assign_attrs()
    whole["t"].attrs = source["t"].attrs
    assert np.array_equal(
        canonical(whole, variables=["temperature"]).temperature.sel(level=500), whole["t"][:, 0]
    )


def test_unsorted_times_are_sorted(make_source):
    source = make_source()
    shuffled = source.isel(time=[3, 0, 5, 1, 4, 2])
    xr.testing.assert_equal(
        canonical(shuffled, variables=["temperature"]), canonical(source, variables=["temperature"])
    )


def test_single_levels_in_files_of_their_own(make_source):
    source = make_source(levels=(300.0, 500.0, 850.0))
    parts = [source.isel(level=[i]) for i in (2, 0, 1)]
    expected = canonical(source, variables=["temperature"])
    xr.testing.assert_equal(canonical(parts, variables=["temperature"]), expected)
    scalars = [source.isel(level=i) for i in (2, 0, 1)]
    xr.testing.assert_equal(canonical(scalars, variables=["temperature"]), expected)


def test_a_scalar_level_beside_a_surface_field(make_source):
    source = make_source(levels=None, names=("t2m",)).assign_coords(level=((), 850.0, {"units": "hPa"}))
    assert canonical(source, surface_variables=["2m_temperature"]).sizes["time"] == 6


@pytest.fixture
def rotated(make_source):
    """A regional model on a rotated pole, as CORDEX files are: rlat and rlon, with latitude and longitude maps."""
    source = make_source(n_lat=21, n_lon=31).drop_vars(["latitude", "longitude"])
    source = source.rename_dims(latitude="rlat", longitude="rlon")
    y, x = np.meshgrid(np.linspace(-10, 10, 21), np.linspace(-15, 15, 31), indexing="ij")
    lat, lon = 50 + y - 0.01 * x**2, 10 + x / np.cos(np.radians(50 + y))
    source = source.assign_coords(
        rlat=("rlat", y[:, 0], {"standard_name": "grid_latitude", "units": "degrees"}),
        rlon=("rlon", x[0], {"standard_name": "grid_longitude", "units": "degrees"}),
        lat=(
            ("rlat", "rlon"),
            lat,
            {"standard_name": "latitude", "units": "degrees_north", "bounds": "lat_vertices"},
        ),
        lon=(
            ("rlat", "rlon"),
            lon,
            {"standard_name": "longitude", "units": "degrees_east", "bounds": "lon_vertices"},
        ),
    )
    for name, values in (("lat", lat), ("lon", lon)):
        edges = np.pad(values, 1, mode="reflect", reflect_type="odd")
        corners = 0.25 * (edges[:-1, :-1] + edges[:-1, 1:] + edges[1:, :-1] + edges[1:, 1:])
        stacked = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], -1)
        source[f"{name}_vertices"] = (("rlat", "rlon", "vertices"), stacked)
    source["rotated_pole"] = ((), 0, {"grid_mapping_name": "rotated_latitude_longitude"})
    source["t"].attrs["grid_mapping"] = "rotated_pole"
    source["t"][:] = (250 + lat / 10).astype(np.float32)
    return source


def test_curvilinear_sources_come_as_they_are_and_can_be_regridded(tmp_path, rotated):
    rotated.to_netcdf(tmp_path / "x.nc")
    opened = open_sources(tmp_path / "x.nc")
    fields = canonicalise(opened.datasets, variables=["temperature"], levels=[850, 500])
    assert fields.temperature.dims == ("time", "level", "y", "x")
    assert fields.latitude.dims == ("y", "x") and np.array_equal(fields.latitude, rotated["lat"])
    assert np.array_equal(fields.temperature.sel(level=850), rotated["t"].sel(level=850))
    assert any("curvilinear" in f.message for f in inspect(fields).warnings)
    fields.to_zarr(tmp_path / "fields.zarr", zarr_format=3, consolidated=False)
    stored = xr.open_zarr(tmp_path / "fields.zarr", consolidated=False)
    target = named_grid({"latitude": [55, 45], "longitude": [0, 20], "step": 1})
    for method in ("bilinear", "conservative"):
        weights = make_weights(stored, target, method)
        out = apply_weights(stored, weights, target)["temperature"]
        assert out.dims == ("time", "level", "latitude", "longitude")
        expected = 250 + target.latitude.values / 10
        assert np.allclose(out.isel(time=2, level=0), expected[:, None], atol=0.01), method


# Units


def test_units_are_converted(make_source):
    celsius = make_source(units="degC", base=-20.0)
    fields = canonical(celsius, variables=["temperature"])
    assert np.allclose(fields.temperature.sel(level=500), celsius["t"].sel(level=500) + 273.15, atol=3e-5)
    assert fields.temperature.attrs["units"] == "K"


def test_height_becomes_geopotential(make_source):
    for name, units in (("zg", "m"), ("z", "gpm")):
        source = make_source(names=(name,), units=units, base=5500.0)
        fields = canonical(source, variables=["geopotential"])
        assert np.allclose(
            fields.geopotential.sel(level=500), source[name].sel(level=500) * 9.80665, rtol=1e-6
        )
    source = make_source(names=("z",), units="m2 s-2", base=5.4e4)
    fields = canonical(source, variables=["geopotential_height"])
    assert np.allclose(
        fields.geopotential_height.sel(level=500) * 9.80665, source["z"].sel(level=500), rtol=1e-6
    )


def test_units_that_do_not_convert_are_refused(make_source):
    with pytest.raises(UnitsError, match=r"temperature: units 'm s-1' cannot be converted to 'K'.*x\.nc:t"):
        canonical(make_source(units="m s-1"), variables=["temperature"], source_names=["x.nc"])


def test_missing_units_are_judged_by_the_values(make_source):
    with pytest.raises(UnitsError, match=r"no units, and values from .* are not in K"):
        canonical(make_source(units=None, base=-20.0), variables=["temperature"])
    fixed = canonical(
        make_source(units=None, base=-20.0), variables=["temperature"], units={"temperature": "degC"}
    )
    assert 240.0 < float(fixed.temperature.mean()) < 275.0
    height = make_source(names=("z",), units=None, base=5500.0)
    with pytest.raises(UnitsError, match="geopotential has no units"):
        canonical(height, variables=["geopotential"])
    assert canonical(make_source(names=("z",), units=None, base=5.5e4), variables=["geopotential"])
    fraction = make_source(names=("r",), units=None, base=0.0) * 0.01
    with pytest.raises(UnitsError, match="relative_humidity"):
        canonical(fraction, variables=["relative_humidity"])


def test_a_variable_outside_the_vocabulary_passes_as_it_is(make_source):
    source = make_source(levels=None, names=("chlorophyll",), units="mg m-3")
    fields = canonical(source, surface_variables=["chlorophyll"])
    assert fields["chlorophyll"].attrs["units"] == "mg m-3"
    assert np.array_equal(fields["chlorophyll"], source["chlorophyll"])


# Many sources


def test_months_and_variables_in_files_of_their_own(make_source):
    whole = make_source(n_time=12, names=("t", "q"))
    whole["q"] = (whole["q"] * 1e-5).assign_attrs(units="kg kg-1")
    names = {"variables": ["temperature", "specific_humidity"]}
    parts = [whole[[name]].isel(time=slice(*part)) for name in "qt" for part in ((6, 12), (0, 6))]
    xr.testing.assert_equal(canonical(parts, **names), canonical(whole, **names))


def test_files_with_different_packing_join(tmp_path, make_source):
    whole = make_source(n_time=12)
    for i, scale in enumerate((1.1e-3, 2.7e-3)):
        part = whole.isel(time=slice(6 * i, 6 * i + 6))
        packing = {"dtype": "int16", "scale_factor": scale, "add_offset": 250.0, "_FillValue": -32767}
        part.to_netcdf(tmp_path / f"{i}.nc", encoding={"t": packing})
    opened = open_sources(tmp_path)
    fields = canonicalise(opened.datasets, variables=["temperature"], source_names=opened.names)
    difference = np.abs(fields.temperature - canonical(whole, variables=["temperature"]).temperature)
    assert float(difference[:6].max()) <= 0.55e-3 + 2e-5
    assert 0.55e-3 + 2e-5 < float(difference[6:].max()) <= 1.35e-3 + 2e-5


def test_equal_duplicates_merge_and_are_told(make_source):
    source = make_source(n_time=8)
    overlapping = [source.isel(time=slice(0, 5)), source.isel(time=slice(3, 8))]
    findings: list[Finding] = []
    fields = canonical(overlapping, variables=["temperature"], findings=findings)
    xr.testing.assert_equal(fields, canonical(source, variables=["temperature"]))
    assert any("2 repeated time steps" in f.message for f in findings)
    twice = source.isel(time=[0, 1, 1, 2, 3, 4, 5, 6, 7, 7])
    xr.testing.assert_equal(canonical(twice, variables=["temperature"]), fields)


def test_duplicates_that_differ_by_their_packing_merge(tmp_path, make_source):
    source = make_source()
    packed = []
    for i, scale in enumerate((1e-2, 1.3e-2)):
        packing = {"dtype": "int16", "scale_factor": scale, "add_offset": 250.0, "_FillValue": -32767}
        source.to_netcdf(tmp_path / f"{i}.nc", encoding={"t": packing})
        packed.append(xr.open_dataset(tmp_path / f"{i}.nc"))
    assert float(np.abs(packed[0]["t"] - packed[1]["t"]).max()) > 5e-3
    assert canonical(packed, variables=["temperature"]).sizes["time"] == 6


def test_conflicting_duplicates_are_refused_by_time_and_source(make_source):
    a, b = make_source(), make_source(start="2020-01-02")
    b["t"][1] += 1.0
    with pytest.raises(
        TimeAxisError, match=r"temperature at 2020-01-02T06:00 .*\(by up to 1, at .*a\.nc:t and b\.nc:t"
    ):
        canonical([a, b], variables=["temperature"], source_names=["a.nc", "b.nc"])


def test_a_duplicate_that_is_all_missing_gives_way(make_source):
    a, b = make_source(), make_source(start="2020-01-02")
    a["t"][4:] = np.nan
    fields = canonical([a, b], variables=["temperature"])
    assert not fields.temperature.isnull().any()
    xr.testing.assert_equal(fields, canonical(make_source(n_time=10), variables=["temperature"]))


def test_variables_of_different_times_keep_the_common_ones(make_source):
    hourly = make_source(n_time=13, step_hours=1, levels=None, names=("t2m",))
    findings: list[Finding] = []
    fields = canonical(
        [make_source(n_time=3), hourly],
        variables=["temperature"],
        surface_variables=["2m_temperature"],
        findings=findings,
    )
    assert fields.sizes["time"] == 3
    assert np.array_equal(fields["2m_temperature"], hourly["t2m"][::6])
    assert any("10 of its 13 time steps" in f.message for f in findings)
    with pytest.raises(EmptySelectionError, match="no time in common"):
        canonical(
            [make_source(n_time=3), make_source(start="2021-01-01", levels=None, names=("t2m",))],
            variables=["temperature"],
            surface_variables=["2m_temperature"],
        )


def test_sources_on_different_grids_are_refused(make_source):
    with pytest.raises(CoordinateError, match=r"different grids: latitude has 9 points .* 17 points"):
        canonical(
            [make_source(), make_source(names=("q",), n_lat=17)],
            variables=["temperature", "specific_humidity"],
        )
    # Float32 coordinates are the same grid.
    second = make_source(names=("q",), units="kg kg-1", base=0.0)
    for axis in ("latitude", "longitude"):
        second[axis] = second[axis].astype(np.float32)
    assert (
        canonical([make_source(), second], variables=["temperature", "specific_humidity"]).sizes["time"] == 6
    )


def test_mixed_calendars_are_refused(make_source):
    a, b = make_source(), make_source(start="2021-01-01")
    b = b.assign_coords(time=xr.date_range("2021-01-01", periods=6, calendar="360_day", use_cftime=True))
    with pytest.raises(TimeAxisError, match="360_day"):
        canonical([a, b], variables=["temperature"])


# What is not there


def test_missing_variable_says_what_is_offered(make_source):
    with pytest.raises(
        MissingVariableError, match=r"vorticity is in none .* temperature at 500, 850 hPa.*x\.nc"
    ):
        canonical(make_source(), variables=["vorticity"], source_names=["x.nc"])
    with pytest.raises(MissingVariableError, match="canonical name: temperature"):
        canonical(make_source(), variables=["t"])
    with pytest.raises(MissingVariableError, match="among variables"):
        canonical(make_source(), surface_variables=["temperature"])
    with pytest.raises(MissingVariableError, match="among surface_variables"):
        canonical(make_source(levels=None, names=("t2m",)), variables=["2m_temperature"])


def test_missing_level_says_what_is_offered(make_source):
    with pytest.raises(MissingLevelError, match="no level 50, 100 hPa; it is offered at 500, 850"):
        canonical(make_source(), variables=["temperature"], levels=[50, 100, 850])


def test_levels_in_common_by_default(make_source):
    a, b = make_source(levels=(300.0, 500.0, 850.0)), make_source(names=("q",), units="kg kg-1", base=0.0)
    findings: list[Finding] = []
    fields = canonical([a, b], variables=["temperature", "specific_humidity"], findings=findings)
    assert fields.level.values.tolist() == [500.0, 850.0]
    assert any("300 hPa are left out" in f.message for f in findings)
    with pytest.raises(MissingLevelError, match="no level in common"):
        canonical([a.sel(level=[300.0]), b], variables=["temperature", "specific_humidity"])


def test_empty_time_selection_says_what_there_is(make_source):
    with pytest.raises(EmptySelectionError, match="hold from 2020-01-01T00:00 to 2020-01-02T06:00"):
        canonical(make_source(), variables=["temperature"], start="2030-01-01")
    chosen = canonical(make_source(), variables=["temperature"], start="2020-01-01T06:00", stop="2020-01-02")
    assert chosen.sizes["time"] == 3


def test_model_levels_and_ensembles_are_refused_by_name(make_source):
    source = make_source(levels=(1.0, 2.0)).rename(level="hybrid").drop_vars("hybrid")
    with pytest.raises(CoordinateError, match="2 model levels"):
        canonical(source, variables=["temperature"])
    members = xr.concat([make_source(), make_source()], "number")
    with pytest.raises(CoordinateError, match="2 ensemble members"):
        canonical(members, variables=["temperature"])
    assert canonical(members.isel(number=[0]), variables=["temperature"]).sizes["time"] == 6


def test_nothing_or_the_same_twice_is_no_request(make_source):
    with pytest.raises(ParameterError, match="no variable"):
        canonical(make_source())
    with pytest.raises(ParameterError, match="twice: temperature"):
        canonical(make_source(), variables=["temperature", "temperature"])
    with pytest.raises(ParameterError, match="levels is empty"):
        canonical(make_source(), variables=["temperature"], levels=[])


def test_files_on_disk_with_unsorted_times_and_few_of_many_levels(tmp_path, make_source):
    source = make_source(n_time=8, levels=tuple(float(p) for p in range(1000, 80, -25)))
    names = {"variables": ["temperature"], "levels": [100, 500, 850]}
    expected = canonical(source, **names)
    shuffled = source.isel(time=[5, 0, 3, 1, 7, 2, 6, 4])
    shuffled.to_netcdf(tmp_path / "nc4.nc")
    shuffled.to_netcdf(tmp_path / "nc3.nc", format="NETCDF3_64BIT")
    shuffled.to_zarr(tmp_path / "s.zarr", zarr_format=2)
    for name in ("nc4.nc", "nc3.nc", "s.zarr"):
        opened = open_sources(tmp_path / name)
        xr.testing.assert_equal(canonicalise(opened.datasets, **names), expected)


def test_times_as_float32(tmp_path, make_source):
    source = make_source(n_time=40, step_hours=1)
    encoding = {"time": {"dtype": "float32", "units": "days since 1850-01-01"}}
    source.to_netcdf(tmp_path / "x.nc", encoding=encoding)
    opened = open_sources(tmp_path / "x.nc")
    assert not np.array_equal(opened.datasets[0].time, source.time)
    fields = canonicalise(opened.datasets, variables=["temperature"])
    assert np.array_equal(fields.time, source.time)


# Lazy and bounded


def test_chunks_follow_the_block_size_and_the_file(tmp_path, make_source):
    source = make_source(n_time=40)
    source.to_zarr(tmp_path / "s.zarr", zarr_format=3, encoding={"t": {"chunks": (4, 2, 9, 16)}})
    opened = open_sources(tmp_path / "s.zarr")
    step = 4 * 2 * 9 * 16
    for steps, expected in ((1, 4), (10, 8), (40, 40)):
        fields = canonical(opened.datasets, variables=["temperature"], block_bytes=steps * step)
        assert fields.temperature.chunks[0][0] == expected, steps


def test_nothing_is_read_before_it_is_asked_for(monkeypatch, tmp_path, make_source):
    make_source().to_netcdf(tmp_path / "x.nc")
    opened = open_sources(tmp_path / "x.nc")
    from weathermill.fields.layout import GuardedReader

    read = []
    original = GuardedReader.__getitem__
    monkeypatch.setattr(
        GuardedReader, "__getitem__", lambda self, key: read.append(key) or original(self, key)
    )
    fields = canonicalise(opened.datasets, variables=["temperature"])
    single = canonicalise([opened.datasets[0].isel(time=2)], variables=["temperature"], levels=[500])
    assert read == []
    fields.temperature.isel(time=0).compute()
    assert len(read) == 1
    assert not opened.datasets[0]["t"].variable._in_memory
    assert np.array_equal(single.temperature[0, 0], fields.temperature[2, 0]) and len(read) == 3


def test_dask_backed_sources_chunked_in_space(make_source):
    source = make_source()
    chunked = source.chunk({"time": 2, "latitude": 3, "longitude": 5, "level": 1})
    xr.testing.assert_equal(
        canonical(chunked, variables=["temperature"]), canonical(source, variables=["temperature"])
    )


def test_what_many_files_have_alike_is_told_once(make_source):
    parts = [make_source(n_time=1, start=f"2020-01-{day:02d}", units=None) for day in range(1, 21)]
    for part in parts:
        del part["level"].attrs["units"]
    findings: list[Finding] = []
    fields = canonical(
        parts, variables=["temperature"], findings=findings, source_names=[f"{i}.nc" for i in range(20)]
    )
    assert fields.sizes["time"] == 20
    assert [(f.severity, f.subject) for f in findings] == [("info", "level"), ("warning", "temperature")]
    assert all("(and 19 more sources likewise)" in f.message for f in findings)
    assert findings[1].message.startswith("0.nc:t has no units; K is assumed")
