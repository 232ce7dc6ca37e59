"""Sources behind a real S3 server on loopback (moto); skipped where moto or s3fs is not installed."""

from __future__ import annotations

import importlib.util
import logging

import pytest
import xarray as xr

from weathermill.errors import SourceNotFoundError, UnreadableSourceError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.opening import open_sources

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("moto", "s3fs", "flask_cors")),
    reason="moto's server or s3fs is not installed",
)


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server, make_source, tmp_path):
    import s3fs

    options = {"key": "access", "secret": "very-secret", "client_kwargs": {"endpoint_url": server}}
    source = make_source()
    filesystem = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    if not filesystem.exists("weather/x.nc"):
        filesystem.call_s3("create_bucket", Bucket="weather")
        source.to_zarr("s3://weather/v2.zarr", storage_options=options, zarr_format=2, mode="w")
        source.to_zarr(
            "s3://weather/v3.zarr", storage_options=options, zarr_format=3, consolidated=False, mode="w"
        )
        source.to_netcdf(tmp_path / "x.nc")
        filesystem.put(str(tmp_path / "x.nc"), "weather/x.nc")
    return options, source


@pytest.mark.parametrize("name", ["v2.zarr", "v3.zarr", "x.nc", "*.nc"])
def test_stores_and_files(bucket, name):
    options, source = bucket
    opened = open_sources(f"s3://weather/{name}", storage_options=options)
    fields = canonicalise(opened.datasets, variables=["temperature"], source_names=opened.names)
    xr.testing.assert_equal(fields, canonicalise([source], variables=["temperature"]))
    (description,) = opened.descriptions
    assert description.location.startswith("s3://weather/") and "secret" not in str(description)


def test_what_is_not_there_or_cannot_be_reached(bucket):
    options, _ = bucket
    for url in (
        "s3://weather/none.zarr",
        "s3://nobucket/x.zarr",
        "s3://weather/none.nc",
        "s3://weather/none*.nc",
    ):
        with pytest.raises(SourceNotFoundError, match=r"no(ne|bucket)"):
            open_sources(url, storage_options=options)
    nowhere = options | {
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    with pytest.raises(UnreadableSourceError, match="connect") as caught:
        open_sources("s3://weather/v2.zarr", storage_options=nowhere)
    assert "credentials" in caught.value.remedy and "very-secret" not in str(caught.value)


def test_the_catalog_takes_credentials_by_name_and_tells_them_to_nobody(bucket, caplog, tmp_path):
    from kedro.io import DataCatalog

    options, source = bucket
    catalog = DataCatalog.from_config(
        {
            "raw_fields": {
                "type": "weathermill.datasets.RawFieldsDataset",
                "filepath": "s3://weather/v2.zarr",
                "load_args": {"storage_options": {"client_kwargs": options["client_kwargs"]}},
                "credentials": "weather_bucket",
            }
        },
        {"weather_bucket": {"key": options["key"], "secret": options["secret"]}},
    )
    with caplog.at_level(logging.DEBUG, logger="weathermill"):
        opened = catalog.load("raw_fields")
    fields = canonicalise(opened.datasets, variables=["temperature"])
    xr.testing.assert_equal(fields, canonicalise([source], variables=["temperature"]))
    dataset = catalog.get("raw_fields")
    told = [str(dataset), str(dataset.lineage(opened)), str(opened.descriptions), caplog.text]
    assert "very-secret" not in "".join(told)
