from __future__ import annotations

import cds_netcdf
import netCDF4
import numpy as np
import pytest
import xarray as xr

LATITUDE = 90 - 11.25 * (np.arange(16) + 0.5)
LONGITUDE = np.arange(32) * 11.25
LEVELS = [850.0, 500.0, 250.0]


@pytest.fixture
def fields():
    generator = np.random.default_rng(0)
    shape = (12, 16, 32)

    def walk(size, start):
        return start + np.cumsum(generator.standard_normal(shape), axis=0) * size

    humidity = np.maximum(np.stack([walk(2e-4, 6e-3), walk(9e-5, 1e-3), walk(1.4e-5, 1e-5)], axis=1), 0)
    fields = {
        "z": np.stack([walk(70, 14_000), walk(100, 54_000), walk(127, 102_000)], axis=1),
        "q": humidity,
        "t2m": walk(0.4, 288.0),
    }
    return {name: values.astype(np.float32) for name, values in fields.items()}


def write(path, fields, **options):
    settings = {
        "times": np.arange(12, dtype=np.int64) * 21_600, "levels": LEVELS, "latitude": LATITUDE, "longitude": LONGITUDE,
        "fraction": 0.1, "attributes": {"title": "test"},
    }  # fmt: skip
    return cds_netcdf.write_cds(path, fields, **{**settings, **options})


def test_every_level_keeps_its_own_precision(tmp_path, fields):
    path = tmp_path / "packed.nc"
    packings = write(path, fields)
    with xr.open_dataset(path) as stored:
        for name, exact in fields.items():
            packing = packings[name]
            back = stored[name].values
            assert back.dtype == np.float32
            levels = range(3) if exact.ndim == 4 else [slice(None)]
            for k in levels:
                wanted = exact[:, k] if exact.ndim == 4 else exact
                found = back[:, k] if exact.ndim == 4 else back
                step = float(packing.scale) * float(
                    np.atleast_1d(packing.multiples)[k if exact.ndim == 4 else 0]
                )
                target = 0.1 * cds_netcdf.tendency_std(wanted, LATITUDE)
                assert 0.7 * target <= step <= 1.43 * target
                rounding = np.abs(exact).max() * 2.0**-23
                assert np.abs(found - wanted).max() <= 0.5 * step * 1.001 + rounding
        assert stored["q"].values.min() == 0.0


def test_layout_is_that_of_the_climate_data_store(tmp_path, fields):
    path = tmp_path / "packed.nc"
    write(path, fields, comments={"t2m": "two metres"})
    with netCDF4.Dataset(path) as dataset:
        assert dataset["z"].dimensions == ("valid_time", "pressure_level", "latitude", "longitude")
        assert dataset["t2m"].dimensions == ("valid_time", "latitude", "longitude")
        assert dataset["valid_time"].dtype == np.int64
        assert dataset["valid_time"].units == "seconds since 1970-01-01"
        assert dataset["pressure_level"][:].tolist() == LEVELS
        assert dataset["pressure_level"].units == "hPa"
        assert dataset["number"].shape == ()
        assert dataset["expver"].dtype is str
        assert dataset["z"].GRIB_shortName == "z"
        assert dataset["t2m"].GRIB_shortName == "2t"
        assert dataset["t2m"].comment == "two metres"
        assert dataset["z"].filters()["zlib"]
        assert dataset["z"].filters()["shuffle"]


def test_another_compressor_changes_bytes_not_values(tmp_path, fields):
    import zlib

    write(tmp_path / "best.nc", fields)
    write(tmp_path / "quick.nc", fields, compress=lambda data: zlib.compress(data, 1))
    with xr.open_dataset(tmp_path / "best.nc") as best, xr.open_dataset(tmp_path / "quick.nc") as quick:
        xr.testing.assert_identical(best.load(), quick.load())


def test_too_fine_a_packing_is_refused_and_leaves_nothing(tmp_path, fields):
    with pytest.raises(ValueError, match="16 bits"):
        write(tmp_path / "packed.nc", fields, fraction=1e-4)
    assert list(tmp_path.iterdir()) == []


def test_constant_level_is_refused(tmp_path, fields):
    fields["z"][:, 1] = 5.0
    with pytest.raises(ValueError, match="does not change"):
        write(tmp_path / "packed.nc", fields)
