from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from weathermill.errors import GridError, ParameterError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.grids import build_grid, describe_grid, named_grid
from weathermill.fields.regrid_page import (
    _grid_text,
    judge_regrid_report,
    render_regrid_report,
    require_thresholds,
)
from weathermill.fields.regridding import RegridWeights, apply_weights, make_weights, regrid_report


@pytest.fixture
def regridded(ecmwf_path):
    fields = canonicalise([xr.open_dataset(ecmwf_path)], variables=["temperature", "u_component_of_wind"])
    target = named_grid("16x30_cells")
    weights = make_weights(fields, target, "conservative")
    after = apply_weights(fields, weights, target)
    return regrid_report(fields, after, weights), fields, after


def test_the_page_has_maps_numbers_and_provenance(regridded):
    report, before, after = regridded
    page = render_regrid_report(report, before, after)
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 2
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))).convert("RGB"), dtype=float)
    assert image.shape[1] > 800 and image.std() > 20.0
    assert report["weights_key"] in page and report["provider"] in page
    assert "temperature, 500 hPa, 2024-06-03T" in page or "temperature, 700 hPa, 2024-06-0" in page
    assert "19 x 36 to 16 x 30" in page


def test_what_was_said_of_the_weights_is_shown_again(ecmwf_path):
    fields = canonicalise([xr.open_dataset(ecmwf_path)], variables=["temperature"])
    made = make_weights(fields, named_grid("38x72_cells"), "bilinear")
    weights = RegridWeights.from_dataset(made.to_dataset())
    report = regrid_report(fields, after := apply_weights(fields, weights), weights)
    page = render_regrid_report(report, fields, after, maps=0)
    assert "times coarser than the target" in page and report["findings"][0]["severity"] == "warning"


def test_what_fields_say_is_escaped(regridded):
    report, before, after = regridded
    renamed = {"temperature": "<script>t</script>"}
    report["variables"] = {renamed.get(k, k): v for k, v in report["variables"].items()}
    page = render_regrid_report(report, before.rename(renamed), after.rename(renamed))
    assert "<script>t" not in page and "&lt;script&gt;t" in page


def test_fields_without_any_value_are_drawn(regridded):
    report, before, after = regridded
    assert "base64" in render_regrid_report(report, before * np.nan, after * np.nan, maps=1)


def test_thresholds_make_a_gate(regridded):
    report, _, _ = regridded
    assert (
        judge_regrid_report(
            report, {"conservation_error": 1e-6, "overshoot": 0.0, "missing_area_gained": 0.0}
        )
        == []
    )
    require_thresholds(report, {"conservation_error": 1e-6})
    findings = judge_regrid_report(report, {"area_integral_error": 1e-9})
    assert {f.subject for f in findings} == {"temperature", "u_component_of_wind"}
    with pytest.raises(GridError, match="fails its gate: temperature: relative change of the area integral"):
        require_thresholds(report, {"area_integral_error": 1e-9})
    with pytest.raises(ParameterError, match="thresholds for beauty are unknown"):
        judge_regrid_report(report, {"beauty": 1.0})
    report["variables"]["temperature"]["missing_area"] = [0.1, 0.3]
    assert len(judge_regrid_report(report, {"missing_area_gained": 0.15})) == 1
    report["variables"]["temperature"]["conservation_error"] = None
    assert len(judge_regrid_report(report, {"conservation_error": 0.0})) == 1


def test_only_a_grid_of_the_globe_is_called_global():
    band = build_grid(np.arange(40, -41, -10.0), np.arange(0, 360, 10.0))
    texts = [
        _grid_text({**describe_grid(grid), "hash": "0" * 16})
        for grid in (named_grid("18x36"), band, band.isel(longitude=slice(0, 9)))
    ]
    assert [text.split(", ")[2] for text in texts] == ["global", "all longitudes", "a region"]
