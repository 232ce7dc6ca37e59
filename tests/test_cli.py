"""The `weathermill` command."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from weathermill.cli import main
from weathermill.errors import ReproductionError
from weathermill.tracking import delivery, reproduction

PROJECT = Path(__file__).resolve().parents[1]
LAYOUTS = Path(__file__).parent / "data" / "layouts"


def run(*words):
    return CliRunner().invoke(main, list(words))


def total(output):
    return float(re.search(r"^total\s+([\d,.]+) MiB", output, re.MULTILINE).group(1).replace(",", ""))


def test_memory_is_predicted_by_part_without_a_gpu():
    arguments = ("memory", "--grid", "31x60", "--channels", "9", "--base-channels", "16", "--depth", "2")
    result = run(*arguments, "--batch", "8")
    assert result.exit_code == 0, result.output
    for part in ("parameters", "optimiser", "activations", "workspace", "fragmentation"):
        assert part in result.output
    assert total(run(*arguments, "--batch", "32").output) > total(result.output)
    recomputed = run(*arguments, "--batch", "32", "--checkpointing")
    assert total(recomputed.output) < total(run(*arguments, "--batch", "32").output)
    for more in ("--zonal-filter", "--spectral", "--ema"):
        assert total(run(*arguments, "--batch", "8", more).output) > total(result.output)


@pytest.mark.parametrize(("gib", "words"), [(80, "largest that fits is"), (0.01, "What would fit")])
def test_memory_says_what_fits(gib, words):
    small = ("--grid", "16x30", "--channels", "3", "--base-channels", "4", "--depth", "1")
    result = run("memory", *small, "--device-memory", str(gib))
    assert result.exit_code == 0, result.output
    assert words in result.output


def test_a_malformed_grid_is_told():
    result = run("memory", "--grid", "721", "--channels", "9")
    assert result.exit_code == 2
    assert "721x1440" in result.output


def ten_days():
    """Two days of ERA5, five times over and a little higher each time: long enough to be split."""
    source = xr.open_dataset(LAYOUTS / "cds_new_pl_realERA5.nc")
    parts = [
        source.assign_coords(valid_time=source["valid_time"] + np.timedelta64(2 * n, "D")) for n in range(5)
    ]
    days = xr.concat(parts, "valid_time")
    for name in ("z", "t"):
        days[name].values += np.repeat(np.arange(5, dtype=np.float32), 4)[:, None, None, None]
    return days


def test_inspect_says_what_a_file_holds_and_what_to_paste(tmp_path):
    page = tmp_path / "report.html"
    ten_days().to_netcdf(tmp_path / "ten_days.nc")
    result = run("inspect", str(tmp_path / "ten_days.nc"), "--html", str(page))
    assert result.exit_code == 0, result.output
    assert "61 x 120, global, points on the poles" in result.output
    assert "variables: [geopotential, temperature]" in result.output and "levels: [500, 850]" in result.output
    assert "Inspection report" in page.read_text()


def test_inspect_takes_names_and_choices(tmp_path):
    forecasts = ten_days().isel(pressure_level=0, drop=True)[["z"]]
    forecasts = forecasts.rename(z="PHI").expand_dims(step=[6.0, 12.0])
    forecasts["step"].attrs["units"] = "hours"
    forecasts.drop_encoding().to_netcdf(tmp_path / "x.nc")
    given = ["--names", "PHI=geopotential_850", "--select", "step=12h"]
    result = run("inspect", str(tmp_path / "x.nc"), *given)
    assert result.exit_code == 0, result.output
    assert 'names: {PHI: "geopotential_850"}' in result.output and "select: {step: 12h}" in result.output
    refused = run("inspect", str(tmp_path / "x.nc"), "--names", "PHX=geopotential_850")
    assert refused.exit_code == 1 and "did you mean PHI" in refused.output
    assert run("inspect", str(tmp_path / "x.nc"), "--select", "step").exit_code == 2


def test_inspect_refuses_what_is_too_short_to_train_on_and_says_what_it_is_good_for():
    result = run("inspect", str(LAYOUTS / "cds_new_pl_realERA5.nc"))
    assert result.exit_code == 1
    assert "error: sources: Split 'validation' holds no state; at least 2 are needed" in result.output
    assert "a forecast may start from it" in result.output and "nothing is wrong" not in result.output
    assert "levels: [500, 850]" in result.output


def test_inspect_fails_where_ingest_would(tmp_path):
    (tmp_path / "page.nc").write_text("<!DOCTYPE html>")
    result = run("inspect", str(tmp_path / "page.nc"))
    assert result.exit_code == 1 and "web page" in result.output
    assert run("inspect", str(tmp_path / "absent.nc")).exit_code == 1


@pytest.mark.parametrize(
    "told",
    [
        delivery.Delivery(
            left=[
                delivery.LeftOver(
                    "c0ffee", Path("x"), [{"op": "end", "status": "FINISHED"}], "it is shut", "Open it."
                )
            ]
        ),
        delivery.Delivery(fault="it is shut\n  -> Open it."),
    ],
)
def test_sync_says_what_is_left_and_exits_with_1(tmp_path, monkeypatch, told):
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(delivery, "synchronise", lambda *_, **__: told)
    result = run("sync")
    assert result.exit_code == 1
    assert "it is shut\n  -> Open it." in result.output
    assert not told.left or "waits: run c0ffee: end of the run (1)" in result.output


@pytest.mark.parametrize("command", [("sync",), ("reproduce", "0" * 32)])
def test_the_record_of_an_environment_is_asked_where_one_is_named(tmp_path, monkeypatch, command):
    """`conf/other` keeps its record elsewhere than the others."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT / "conf", project / "conf", ignore=shutil.ignore_patterns("local"))
    shutil.copy(PROJECT / "pyproject.toml", project)
    shutil.copytree(project / "conf" / "sample", project / "conf" / "other")
    (project / "src").mkdir()
    (project / "conf" / "other" / "mlflow.yml").write_text("tracking_uri: sqlite:///other.db\n")
    monkeypatch.chdir(project)
    asked = []

    def look_up(run_id, settings, path):
        asked.append(settings.tracking_uri)
        raise ReproductionError("enough")

    monkeypatch.setattr(reproduction, "look_up", look_up)

    def synchronise(settings, path, **_):
        asked.append(settings.tracking_uri)
        return delivery.Delivery(complete=["a"])

    monkeypatch.setattr(delivery, "synchronise", synchronise)
    for words in ([], ["--env=other"]):
        result = run(*command, *words)
        assert ("enough" if command[0] == "reproduce" else "1 runs are complete now") in result.output
    assert asked == ["sqlite:///mlflow.db", "sqlite:///other.db"]
