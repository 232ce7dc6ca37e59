"""The notebook opens a finished run: executed from top to bottom on one of the real ECMWF series."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "explore_run.ipynb"


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A project in a folder of its own in which ``kedro run --env=ecmwf_sample`` has ended well."""
    project = tmp_path_factory.mktemp("notebook") / "project"
    shutil.copytree(ROOT / "conf", project / "conf", ignore=shutil.ignore_patterns("local"))
    (project / "conf" / "local").mkdir()
    (project / "src").mkdir()
    (project / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", project / "pyproject.toml")
    shutil.copytree(ROOT / "tests" / "data" / "ecmwf_sample", project / "tests" / "data" / "ecmwf_sample")
    kedro = Path(sys.executable).with_name("kedro")
    environment = {**os.environ, "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}
    command = [str(kedro), "run", "--env=ecmwf_sample", "--params", "train.epochs=1"]
    result = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return project


def test_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_runs_from_top_to_bottom(finished_run, monkeypatch):
    monkeypatch.setenv("KEDRO_ENV", "ecmwf_sample")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Another backend than the notebook's own shows no figures.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # From a folder below the project, as Jupyter opens it.
    resources = {"metadata": {"path": str(finished_run / "notebooks")}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 8
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "environment: ecmwf_sample" in printed
    assert "8 states from 2024-06-03 00 to 2024-06-04 18 UTC, every 6 h" in printed
    tables = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("geopotential_500" in table for table in tables)
    assert any("FINISHED" in table for table in tables)
