"""The cases in ``conf/``: what they inherit, what they must say themselves, and what is refused."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from omegaconf import OmegaConf

from weathermill import settings
from weathermill.cases import CaseConfigLoader, unread_local_files
from weathermill.cli import main, run
from weathermill.faults import VARIABLE
from weathermill.parameters import Parameters, validate_parameters

SOURCE = Path(__file__).resolve().parents[1]
CASES = ("ecmwf_sample", "era5_0p25deg", "era5_1deg", "reference", "sample", "weatherbench1")
#: What conf/base sets otherwise than the declared default: a guard against regridding that goes wrong.
GUARDS = {"regrid.thresholds.overshoot": 0.01}


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    return {
        name: value
        for key, entry in values.items()
        for name, value in (
            flat(entry, f"{prefix}{key}.").items()
            if isinstance(entry, dict) and entry
            else [(f"{prefix}{key}", entry)]
        )
    }


def loader(conf: Path = SOURCE / "conf", env: str | None = None) -> CaseConfigLoader:
    return CaseConfigLoader(str(conf), env=env, **settings.CONFIG_LOADER_ARGS)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project's configuration in a folder of its own, without data."""
    path = tmp_path / "project"
    shutil.copytree(SOURCE / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
    (path / "src").mkdir()
    shutil.copy(SOURCE / "pyproject.toml", path)
    monkeypatch.chdir(path)
    monkeypatch.delenv(VARIABLE, raising=False)
    bootstrap_project(path)
    return path


def write_case(project: Path, name: str, **files: dict) -> Path:
    folder = project / "conf" / name
    folder.mkdir(exist_ok=True)
    for kind, content in files.items():
        (folder / f"{kind}.yml").write_text(yaml.safe_dump(content))
    return folder


def refused(command, *words: str) -> str:
    result = CliRunner().invoke(command, list(words))
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    return " ".join(result.output.split())


def test_without_a_case_the_sample_runs_with_the_parameters_that_it_always_had():
    expected = yaml.safe_load((SOURCE / "tests" / "data" / "cases" / "sample.yml").read_text())
    effective = flat(validate_parameters(loader()["parameters"]).model_dump(mode="json"))
    assert {name: effective.get(name, "no such parameter") for name in expected} == expected
    assert loader()["catalog"]["raw_fields"]["filepath"] == "data/01_raw/speedy_t21_sample.nc"
    assert loader().environment == "sample"


def test_what_all_cases_inherit_is_neutral():
    """`conf/base` says what the parameters' declared defaults are, with comments; it takes no field and no grid."""
    base = OmegaConf.merge(*map(OmegaConf.load, sorted((SOURCE / "conf" / "base").glob("parameters*.yml"))))
    values = flat(OmegaConf.to_container(base))
    assert values["ingest.variables"] == values["ingest.surface_variables"] == []
    assert values["regrid.target"] is None
    declared = flat(Parameters.model_validate({"ingest": {"variables": ["temperature"]}}).model_dump())
    assert {
        name: value
        for name, value in values.items()
        if name != "ingest.variables" and declared.get(name, "undeclared") != value
    } == GUARDS
    catalog = yaml.safe_load((SOURCE / "conf" / "base" / "catalog.yml").read_text())
    assert not {"raw_fields", "initial_fields"} & set(catalog)
    assert not (SOURCE / "conf" / "base" / "globals.yml").exists()


def test_the_readme_lists_the_cases_that_git_keeps():
    readme = (SOURCE / "README.md").read_text(encoding="utf-8")
    assert all(f"`{case}`" in readme for case in CASES)
    words = ["git", "ls-files", "conf"]
    kept = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True, check=False)
    if kept.returncode or not kept.stdout:
        pytest.skip("not in a git repository")
    folders = {line.split("/")[1] for line in kept.stdout.splitlines() if line.count("/") > 1}
    assert folders == {"base", "local", *CASES}


@pytest.mark.parametrize("case", CASES)
def test_every_case_names_its_source_and_fields_and_has_folders_of_its_own(case):
    configuration = loader(env=case)
    parameters = validate_parameters(configuration["parameters"])
    assert parameters.ingest.variables or parameters.ingest.surface_variables
    catalog = configuration["catalog"]
    assert catalog["initial_fields"] == catalog["raw_fields"]
    assert f"/{case}/" in catalog["model"]["filepath"]


def test_the_published_baseline_is_that_value_by_value():
    published = validate_parameters(loader(env="reference")["parameters"])
    model, train = published.model, published.train
    assert (model.name, model.base_channels, model.depth, model.boundary) == ("unet", 64, 3, "zeros")
    assert (model.norm, model.target, model.zonal_filter) == ("batch", "state", None)
    assert (train.epochs, train.batch_size, train.learning_rate, train.weight_decay) == (10, 4, 1e-4, 1e-5)
    assert (train.loss, train.schedule, train.rollout, train.step.clip_norm) == ("mse", "constant", [1], None)
    assert train.rollout_loss.noise_std == 0


def test_a_new_case_forecasts_from_its_own_fields_in_folders_of_its_own(project):
    source = {"type": "weathermill.datasets.RawFieldsDataset", "filepath": ["a.nc", "b.nc"]}
    write_case(project, "mine", catalog={"raw_fields": source})
    configuration = loader(project / "conf", "mine")
    assert configuration["catalog"]["initial_fields"] == source
    assert configuration["catalog"]["forecast"]["filepath"] == "data/07_model_output/mine/forecast.nc"
    other = {**source, "filepath": "today.nc"}
    write_case(
        project, "mine", catalog={"raw_fields": source, "initial_fields": other}, globals={"case": "x"}
    )
    configuration = loader(project / "conf", "mine")
    assert configuration["catalog"]["initial_fields"] == other
    assert configuration["catalog"]["forecast"]["filepath"] == "data/07_model_output/x/forecast.nc"


def test_a_case_without_a_source_is_told_what_to_write(project):
    folder = write_case(project, "mine", parameters={"ingest": {"variables": ["temperature"]}})
    message = "the catalog of this case names no raw_fields [conf/<env>/catalog.yml] -> Write there"
    assert message in refused(run, "--env=mine", "--dry-run")
    assert message in refused(run, "--env=mine", "--pipelines=ingest")
    assert message in refused(main, "status", "--env=mine")
    # The remedy's own line works.
    line = refused(run, "--env=mine", "--dry-run").partition("`")[2].partition("`")[0]
    (folder / "catalog.yml").write_text(line.replace("…", "a.nc"))
    assert "a.nc" in refused(run, "--env=mine", "--dry-run")
    assert not (project / "data").exists()


def test_a_case_without_fields_is_told_how_to_find_them(project):
    source = {"type": "weathermill.datasets.RawFieldsDataset", "filepath": "a.nc"}
    write_case(project, "mine", catalog={"raw_fields": source})
    assert "`weathermill inspect <source>` prints what there is" in refused(run, "--env=mine")


@pytest.mark.parametrize("words", [(run,), (run, "--dry-run"), (main, "status"), (main, "sync")])
def test_base_is_no_case(project, words):
    command, *rest = words
    message = refused(command, *rest, "--env=base")
    assert "WM101 conf/base holds what all cases share and is no case of its own [--env=base]" in message
    assert "Choose a case: ecmwf_sample, era5_0p25deg," in message
    assert "Without --env it is sample." in message


def test_files_in_conf_local_that_are_not_read_are_named(project, caplog):
    assert unread_local_files(loader(project / "conf")) == ""
    local = write_case(project, "local")
    (local / ".gitkeep").touch()
    assert unread_local_files(loader(project / "conf")) == ""
    write_case(project, "local", parameters={"seed": 3}, credentials={})
    with caplog.at_level(logging.INFO, logger="weathermill.hooks"):
        CliRunner().invoke(run, ["--dry-run"])
    said = "conf/local (credentials.yml, parameters.yml) is not read with --env=sample; --env=local reads it"
    assert [record.getMessage() for record in caplog.records].count(said) == 1
    assert unread_local_files(loader(project / "conf", "local")) == ""
    assert loader(project / "conf", "local")["parameters"]["seed"] == 3


@pytest.mark.parametrize("name", ["era5_1deg/credentials.yml", "base/credentials.yml", "local/catalog.yml"])
def test_git_ignores_credentials_and_local_files(name):
    words = ["git", "check-ignore", "--quiet", f"conf/{name}"]
    status = subprocess.run(words, cwd=SOURCE, check=False).returncode
    if status == 128:
        pytest.skip("not in a git repository")
    assert status == 0
    words[-1] = "conf/era5_1deg/catalog.yml"
    assert subprocess.run(words, cwd=SOURCE, check=False).returncode == 1
