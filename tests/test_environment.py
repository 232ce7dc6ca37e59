"""environment.yml and pyproject.toml say the same about versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {
    "cf_xarray": "cf-xarray",
    "dask-core": "dask",
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
}


def bounds(requirement: str) -> tuple[str, str]:
    name, bound = re.match(r"([A-Za-z0-9_.-]+)\s*(.*)", requirement).groups()
    return name.lower(), bound.replace(" ", "")


def test_bounds_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(bounds(requirement) for requirement in project["dependencies"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = dict(bounds(entry) for entry in environment["dependencies"] if isinstance(entry, str))
    assert conda.pop("python") == project["requires-python"]
    assert conda.pop("pip") == ""
    # The reason to come this way.
    assert conda.pop("esmpy")
    for name, bound in conda.items():
        assert wanted[CONDA_NAMES.get(name, name)] == bound, name
    assert {"pip": ["-e ."]} in environment["dependencies"]
