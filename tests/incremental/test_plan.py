"""What must run, why, and what stands."""

from __future__ import annotations

import os

import pytest
from kedro_datasets.text import TextDataset

from weathermill.datasets import WholeDataset
from weathermill.errors import ParameterError
from weathermill.incremental import plan as plan_module
from weathermill.incremental.plan import forced_nodes, make_plan
from weathermill.incremental.records import Record, files_of, size_of, write_record
from weathermill.parameters import ModelParameters


def plan(little, **options):
    return make_plan(
        little.pipeline,
        little.catalog,
        little.parameters,
        node_digest=lambda node: little.digests[node.name],
        **options,
    )


def reasons(little, **options):
    return {entry.node.name: entry.reason for entry in plan(little, **options) if entry.runs}


def run(little, **options):
    """Do what the plan says, as the runner does."""
    ran = []
    for entry in plan(little, **options):
        if not entry.runs:
            continue
        ran.append(entry.node.name)
        inputs = {
            name: little.parameters["scale"] if name.startswith("params:") else little.catalog.load(name)
            for name in entry.node.inputs
        }
        for name, value in entry.node.run(inputs).items():
            little.catalog.save(name, value)
            if name != "lazy":
                path = little.path(name)
                record = Record(
                    entry.fingerprints[name],
                    entry.node.name,
                    0.0,
                    0.0,
                    size_of(path),
                    parts=dict(entry.parts),
                    files=files_of(path),
                )
                write_record(path, record)
    return ran


def test_at_first_everything_runs_and_then_nothing(make_little):
    little = make_little()
    assert reasons(little)["store"] == "store does not exist"
    assert run(little) == ["store", "lazily", "finish"]
    assert little.catalog.load("result") == "RAW:1!"
    assert run(little) == []
    assert all("unchanged" in e.reason or "memory only" in e.reason for e in plan(little))


def test_a_changed_parameter_is_named_and_moves_what_lies_downstream(make_little):
    little = make_little()
    run(little)
    little.parameters["scale"] = 3
    assert reasons(little) == {
        "store": "changed: params:scale",
        "lazily": "what it makes is kept in memory only and is needed",
        "finish": "changed: lazy",
    }
    run(little)
    assert little.catalog.load("result") == "RAW:3!"


def test_a_parameter_that_no_node_takes_changes_nothing(make_little):
    little = make_little()
    run(little)
    little.parameters["unused"] = 99
    assert reasons(little) == {}


def test_a_changed_source_is_named(make_little):
    little = make_little()
    run(little)
    little.source.write_text("other")
    assert reasons(little)["store"] == "changed: source"


def test_a_source_of_another_time_counts_as_changed(make_little):
    little = make_little()
    run(little)
    os.utime(little.source, (1, 1))
    assert reasons(little)["store"] == "changed: source"


def test_changed_code_moves_its_node_and_those_after_it(make_little):
    little = make_little()
    run(little)
    little.digests["finish"] = "v2"
    assert reasons(little) == {
        "lazily": "what it makes is kept in memory only and is needed",
        "finish": "changed: its code",
    }
    little.digests |= {"finish": "v1", "lazily": "v2"}
    assert set(reasons(little)) == {"lazily", "finish"}


def test_a_missing_output_brings_its_memory_only_supplier_but_not_the_store(make_little):
    little = make_little()
    run(little)
    little.path("result").unlink()
    assert run(little) == ["lazily", "finish"]


def test_a_missing_store_that_would_be_equal_moves_what_lies_downstream(make_little):
    little = make_little()
    run(little)
    little.path("store").unlink()
    assert set(reasons(little)) == {"store", "lazily", "finish"}


@pytest.mark.parametrize("text", ["raw:1 and more", "r"])
def test_an_output_of_another_size_than_its_record_says_is_made_again(make_little, text):
    little = make_little()
    run(little)
    little.path("result").write_text(text)
    assert "result.txt is" in reasons(little)["finish"]


def test_forced_nodes_run_with_all_downstream(make_little):
    little = make_little()
    run(little)
    assert set(reasons(little, force={"finish"})) == {"lazily", "finish"}
    assert reasons(little, force={"store"})["finish"] == "lazy is made anew"
    assert set(reasons(little, force=True)) == {"store", "lazily", "finish"}


def test_a_part_of_the_pipeline_reads_fingerprints_from_records(make_little):
    little = make_little()
    run(little)
    little.pipeline = little.pipeline.only_nodes("lazily", "finish")
    assert reasons(little) == {}, "the same fingerprints as in the whole pipeline"


def test_a_name_that_cannot_be_forced_is_told():
    from kedro.framework.project import configure_project

    configure_project("weathermill")
    assert "train" in forced_nodes("train")
    assert {"ingest", "regrid"} <= set(forced_nodes("ingest regrid"))
    with pytest.raises(ParameterError, match="trian"):
        forced_nodes(["trian"])


def test_only_missing_outputs_are_made_of_what_is_there_and_counted_so(make_little):
    little = make_little()
    run(little)
    (before,) = (entry for entry in plan(little) if entry.node.name == "finish")
    little.parameters["scale"] = 2
    little.path("result").unlink()
    made = {entry.node.name: entry for entry in plan(little, only_missing=True)}
    assert [name for name, entry in made.items() if entry.runs] == ["lazily", "finish"]
    assert made["store"].reason == "its outputs exist"
    # The store is that of scale 1, and so is what is made of it.
    assert made["finish"].fingerprints == before.fingerprints
    assert run(little, only_missing=True) == ["lazily", "finish"]
    assert reasons(little)["store"] == "changed: params:scale"
    assert run(little) == ["store", "lazily", "finish"]


def test_what_is_not_on_the_local_disk_is_made_in_every_run(make_little):
    little = make_little()
    run(little)
    little.catalog["lazy"] = TextDataset(filepath="memory://lazy.txt")
    assert reasons(little)["lazily"] == "lazy is not on the local disk, where records are kept"
    assert set(reasons(little, only_missing=True)) == {"lazily"}
    little.catalog.save("lazy", "there")
    assert reasons(little, only_missing=True) == {}


def test_another_way_of_reading_and_writing_counts(make_little, monkeypatch):
    little = make_little()
    run(little)
    assert reasons(little) == {}
    digest = plan_module.dataset_digest
    monkeypatch.setattr(plan_module, "dataset_digest", lambda kinds: digest(kinds) + "changed")
    told = reasons(little)
    assert told["store"] == "changed: the code or arguments of the datasets that it reads and writes"
    assert set(told) == {"store", "lazily", "finish"}


def test_arguments_of_a_dataset_count_and_its_place_does_not(make_little):
    little = make_little()
    run(little)
    path = str(little.path("result"))
    arguments = {"fs_args": {"open_args_save": {"encoding": "utf-16"}}}
    little.catalog["result"] = WholeDataset(filepath=path, dataset={"type": "text.TextDataset", **arguments})
    assert set(reasons(little)) == {"lazily", "finish"}
    here, elsewhere = ({e.node.name: e.fingerprints for e in plan(make_little(c))} for c in "ab")
    assert here == elsewhere


def test_the_code_of_own_networks_counts(make_little, monkeypatch):
    little = make_little()
    little.parameters["model"] = ModelParameters(name="mine", module="my_networks")
    asked = []

    def digest(function, name, module):
        asked.append((name, module))
        return "v1" if function.__name__ == "finish" else ""

    monkeypatch.setattr(plan_module, "network_digest", digest)
    run(little)
    # Also of nodes that load a model: other networks that a process happens to know count nowhere.
    assert set(asked) == {("mine", "my_networks")}
    monkeypatch.setattr(plan_module, "network_digest", lambda *given: digest(*given) and "v2")
    assert reasons(little)["finish"] == "changed: the code of its network"
    assert "store" not in reasons(little)
