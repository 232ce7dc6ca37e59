"""What a run finds of one that was killed, and mends before it begins."""

from __future__ import annotations

import pytest

from weathermill.incremental.hook import IncrementalHook


@pytest.fixture
def hook():
    return IncrementalHook()


def test_a_replacement_that_was_not_finished_is_undone(tmp_path, hook):
    store = tmp_path / "model"
    (tmp_path / "model.replaced").mkdir()
    (tmp_path / "model.replaced" / "weights").write_text("old")
    hook._clear_left_overs(store)
    assert (store / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_was_replaced_already_goes(tmp_path, hook):
    for name in ("model", "model.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    (tmp_path / "model.fingerprint.json.partial").write_text("{")
    hook._clear_left_overs(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "model"


def test_who_only_reads_finds_what_stood_there(tmp_path, hook):
    (tmp_path / "model.replaced").write_text("old")
    assert hook._restore(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "old"
    assert not hook._restore(tmp_path / "model")
