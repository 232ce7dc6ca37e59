"""An ingest whose period grows, through Kedro: what stands is kept, unless it is forced."""

from __future__ import annotations

import logging
import os

import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from weathermill.incremental.runner import IncrementalRunner


def ingest(project, **params):
    os.chdir(project.path)
    bootstrap_project(project.path)
    with KedroSession.create(project.path, runtime_params=params) as session:
        session.run(pipeline_names=["ingest"], runner=IncrementalRunner())


def shards(project):
    store = project.file("02_intermediate", "sample", "fields.zarr")
    return {
        path.relative_to(store).as_posix(): path.stat().st_ino
        for path in store.rglob("c/*/**/*")
        if path.is_file()
    }


def test_a_longer_period_keeps_what_stands(project, caplog):
    catalog = yaml.safe_load((project.path / "conf" / "base" / "catalog.yml").read_text())
    entry = {**catalog["fields"], "filepath": "data/02_intermediate/sample/fields.zarr"}
    entry["save_args"] = {"chunk_bytes": 140_000, "shard_bytes": 480_000}
    (project.path / "conf" / "local" / "catalog.yml").write_text(yaml.safe_dump({"fields": entry}))
    ingest(project, ingest={"stop": "2000-11-26"})
    old = shards(project)
    with caplog.at_level(logging.INFO, logger="weathermill.datasets.sharded"):
        ingest(project)
    new = shards(project)
    assert "stand in the old store" in caplog.text
    kept = [name for name in old if new[name] == old[name]]
    assert len(new) > len(old) > 4 and len(kept) >= len(old) - 4
    caplog.clear()
    ingest(project, force="ingest")
    assert "stand in the old store" not in caplog.text
    forced = shards(project)
    assert set(forced) == set(new) and not set(forced.values()) & set(new.values())
