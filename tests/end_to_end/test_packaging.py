"""The wheel, with the archive of the configuration, in an environment and a folder that know no project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]


def call(*words, cwd):
    environment = {**os.environ, "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The Python of an environment that holds the wheel, and all else from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("packaging")
    copy = folder / "copy"
    copy.mkdir()
    shutil.copytree(SOURCE / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, copy)
    built = call(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, copy, cwd=folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    venv.create(folder / "env", symlinks=True)
    packages = folder / "env" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A path that a path file adds is no place for path files, so that the editable installation stays out.
    (packages / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with tarfile.open(folder / "conf-weathermill.tar.gz", "w:gz") as archive:
        archive.add(SOURCE / "conf", "conf", filter=lambda entry: None if "/local" in entry.name else entry)
    return folder


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder_with_the_archive_of_the_configuration(
    installed, small_sample, tmp_path
):
    python, conf = installed / "env" / "bin" / "python", installed / "conf-weathermill.tar.gz"
    where = "import weathermill, esmpy; print(weathermill.__file__, esmpy.__file__)"
    assert call(python, "-c", where, cwd=tmp_path).stdout.count(str(installed / "env")) == 2
    words = [python, "-m", "weathermill", "--pipelines=ingest"]
    refused = call(*words, cwd=tmp_path)
    assert refused.returncode == 1 and "--conf-source=conf-weathermill.tar.gz" in refused.stderr
    refused = call(*words, f"--conf-source={conf}", cwd=tmp_path)
    sample = tmp_path / "data" / "01_raw" / "speedy_t21_sample.nc"
    assert refused.returncode == 1 and f"{sample} does not exist" in refused.stderr
    assert not list(tmp_path.iterdir())
    sample.parent.mkdir(parents=True)
    shutil.copy(small_sample, sample)
    ran = call(*words, f"--conf-source={conf}", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"data", "mlflow.db", "mlartifacts"}
    assert (tmp_path / "data" / "02_intermediate" / "sample" / "fields.zarr" / "zarr.json").exists()
    main = "from weathermill.cli import main; main()"
    shown = call(python, "-c", main, "status", "--pipelines=ingest", f"--conf-source={conf}", cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.count("stands") == 2, shown.stdout + shown.stderr
