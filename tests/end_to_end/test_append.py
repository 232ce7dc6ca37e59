"""An ingest whose period grows, through Kedro: what stands is kept, unless it is forced."""

from __future__ import annotations

import logging
import os

import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from weathermill.incremental.runner import IncrementalRunner


def run(project, pipeline="ingest", **params):
    os.chdir(project.path)
    bootstrap_project(project.path)
    with KedroSession.create(project.path, runtime_params=params) as session:
        session.run(pipeline_names=[pipeline], runner=IncrementalRunner())


def shards(project, *store):
    store = project.file(*(store or ("02_intermediate", "sample", "fields.zarr")))
    return {
        path.relative_to(store).as_posix(): path.stat().st_ino
        for path in store.rglob("c/*/**/*")
        if path.is_file()
    }


def test_a_longer_period_keeps_what_stands(project, caplog):
    catalog = yaml.safe_load((project.path / "conf" / "base" / "catalog.yml").read_text())
    entry = {**catalog["fields"], "filepath": "data/02_intermediate/sample/fields.zarr"}
    entry["save_args"] = {"chunk_bytes": 140_000, "shard_bytes": 480_000}
    other = {**entry, "filepath": "data/03_primary/sample/regridded.zarr"}
    other["save_args"] = {"chunk_bytes": 31_000, "shard_bytes": 105_000}
    text = yaml.safe_dump({"fields": entry, "regridded": other})
    with (project.path / "conf" / "sample" / "catalog.yml").open("a") as file:
        file.write(text)
    run(project, ingest={"stop": "2000-11-26"})
    run(project, "regrid", ingest={"stop": "2000-11-26"})
    regridded = ("03_primary", "sample", "regridded.zarr")
    old, old_regridded = shards(project), shards(project, *regridded)
    with caplog.at_level(logging.INFO, logger="weathermill.datasets.sharded"):
        run(project)
    new = shards(project)
    assert "stand in the old store" in caplog.text
    kept = [name for name in old if new[name] == old[name]]
    assert len(new) > len(old) > 4 and len(kept) >= len(old) - 4
    run(project, "regrid")
    new_regridded = shards(project, *regridded)
    kept = [name for name in old_regridded if new_regridded[name] == old_regridded[name]]
    assert len(new_regridded) > len(old_regridded) > 4 and len(kept) >= len(old_regridded) - 4
    caplog.clear()
    run(project, force="ingest")
    assert "stand in the old store" not in caplog.text
    forced = shards(project)
    assert set(forced) == set(new) and not set(forced.values()) & set(new.values())
