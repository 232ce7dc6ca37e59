"""Records: what they hold, and that damage is named."""

from __future__ import annotations

import json

import pytest

from weathermill.incremental.records import (
    Record,
    fault_of,
    files_of,
    in_words,
    read_record,
    record_path,
    remove_record,
    size_of,
    stored_record,
    write_record,
)


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    (folder / "c").mkdir(parents=True)
    for name, text in (("zarr.json", "{}"), ("c/0", "abcd"), ("c/1", "efgh")):
        (folder / name).write_text(text)
    write_record(folder, Record("f" * 64, "node", 0.0, 1.0, size_of(folder), files=files_of(folder)))
    return folder


def test_a_record_comes_back_and_goes(store):
    record = read_record(store)
    assert record.size == 10 and set(record.files) == {"zarr.json", "c/0", "c/1"}
    assert not list(store.parent.glob("*.partial"))
    remove_record(store)
    assert read_record(store) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: (s / "c/1").unlink(), "c/1 is missing"),
        (lambda s: (s / "c/1").write_text("ef"), "c/1 is truncated: 2 bytes, not 4"),
        (lambda s: (s / "c/1").write_text("efghi"), "c/1 is longer"),
        (lambda s: (s / "c/2").write_text(""), "c/2 was not there"),
    ],
)
def test_a_cheap_look_names_what_is_missing_truncated_or_new(store, damage, words):
    damage(store)
    assert words in fault_of(store, stored_record(store))
    assert read_record(store) is None


def test_a_flipped_byte_is_found_on_request(store):
    (store / "c/1").write_text("efgx")
    record = stored_record(store)
    assert fault_of(store, record) == ""
    assert "c/1 is changed" in fault_of(store, record, checksums=True)


def test_swapped_files_are_told_as_such(store):
    (store / "c/0").write_text("efgh")
    (store / "c/1").write_text("abcd")
    assert "c/0 holds the contents of c/1 (and 1 more)" in fault_of(
        store, stored_record(store), checksums=True
    )


def test_one_file_is_named_by_its_own_name(tmp_path):
    file = tmp_path / "scores.nc"
    file.write_bytes(b"1234")
    write_record(file, Record("f", "n", 0.0, 0.0, 4, files=files_of(file)))
    file.write_bytes(b"123")
    assert "scores.nc is truncated" in fault_of(file, stored_record(file))


def test_checksums_that_are_known_are_not_computed_again(store):
    assert files_of(store, {"c/0": "known"})["c/0"] == (4, "known")


def test_a_damaged_record_is_none(store):
    record_path(store).write_text('{"fingerprint": ')
    assert stored_record(store) is None
    record_path(store).write_text(json.dumps({"surprise": 1}))
    assert stored_record(store) is None


def test_a_record_from_before_there_were_checksums_still_counts(store):
    values = json.loads(record_path(store).read_text())
    del values["files"], values["peak_memory"]
    record_path(store).write_text(json.dumps(values))
    assert read_record(store) is not None
    (store / "c/0").write_text("a")
    assert read_record(store) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7200, "2 h"), (3e5, "3 d")]
)
def test_ages_in_words(seconds, words):
    assert in_words(seconds) == words
