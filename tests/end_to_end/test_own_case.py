"""A user's own case: just the files that docs/data.md shows, on a small region, through every stage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import xarray as xr

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def write_region(path: Path) -> xr.Dataset:
    """Twelve days of 2 m temperature every six hours over the British Isles: a wave that moves eastwards."""
    latitude, longitude = np.arange(61.0, 48.0, -1.0), np.arange(-11.0, 5.0)
    time = np.datetime64("2019-03-01", "ns") + np.arange(48) * np.timedelta64(6, "h")
    phase = np.radians(15 * (longitude - longitude[0]))[None, None, :] - 0.4 * np.arange(48)[:, None, None]
    noise = np.random.default_rng(0).standard_normal((48, 13, 16))
    values = 280 - 0.5 * (latitude - 48)[None, :, None] + 5 * np.sin(phase) + 0.2 * noise
    fields = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values.astype("float32"), {"units": "K"})},
        coords={
            "time": time,
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    )
    fields.to_netcdf(path)
    return fields


def documented_files() -> dict[str, str]:
    """Contents of the YAML blocks of the page that begin with the name of a file in ``conf/mine``."""
    blocks = re.findall(r"^```yaml\n# (conf/mine/\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


def test_the_documented_case_is_all_that_own_data_need(project):
    fields = write_region(project.file("01_raw", "mine_2019.nc"))
    files = documented_files()
    assert set(files) == {"conf/mine/catalog.yml", "conf/mine/parameters.yml"}
    assert sum(len(text.splitlines()) for text in files.values()) <= 10
    for name, text in files.items():
        target = project.path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    # To be quick; the case needs none of it.
    quick = {
        "model": {"base_channels": 8},
        "train": {"epochs": 1},
        "evaluate": {"stability_days": None, "bootstrap_samples": 20, "lead_time_hours": 24},
        "forecast": {"lead_time_hours": 24},
    }
    project.run(env="mine", params=quick)
    with xr.open_dataset(project.file("07_model_output", "mine", "forecast.nc")) as forecast:
        assert forecast["init_time"].values.ravel()[0] == fields["time"].values[-1]
        assert forecast.sizes["latitude"] == 13 and forecast.sizes["longitude"] == 16
        first = forecast["2m_temperature"].isel(lead_time=0).values.ravel()
    assert 260 < first.min() < first.max() < 300
    assert not list(project.path.glob("data/0[2-8]_*/sample"))
    scores = project.catalog(env="mine").load("scores")
    assert scores["channel"].values.tolist() == ["2m_temperature"]
    assert np.isfinite(scores["rmse"].sel(source="forecast")).all()
