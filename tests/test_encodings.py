"""Texts are UTF-8 whatever the locale, and no command ends for a character that the terminal lacks."""

from __future__ import annotations

import ast
import io
import locale
import sys
from pathlib import Path

import pandas as pd
import pytest

from weathermill.datasets import WholeDataset
from weathermill.terminal import print_in_any_locale

PROJECT = Path(__file__).resolve().parents[1]
TEXT = "Δ850 hPa, 5 °C, 北京"


def _opens_text_in_the_locale(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if {"encoding", None} & set(keywords):
        return False
    if name == "run" and "text" in keywords:
        return True
    if name in ("read_text", "write_text"):
        return len(call.args) < {"read_text": 1, "write_text": 2}[name]
    # `open` of a path and of the standard library; others, of archives and checkpoints, have no mode of text.
    given = [*call.args, *([keywords["mode"]] if "mode" in keywords else [])]
    modes = [arg.value for arg in given if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return name in ("open", "fdopen") and any(set(mode) <= set("rwax+t") for mode in modes)


@pytest.mark.parametrize("folder", ["src", "scripts", "benchmarks"])
def test_every_text_is_opened_with_an_encoding(folder):
    found = [
        f"{file.relative_to(PROJECT)}:{node.lineno}"
        for file in sorted((PROJECT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _opens_text_in_the_locale(node)
    ]
    assert not found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.open('w')", True),
        ("open(path, mode='a')", True),
        ("subprocess.run(words, text=True)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.write_text(text, 'utf-8')", False),
        ("path.open('rb')", False),
        ("os.open(path, os.O_RDONLY)", False),
    ],
)
def test_a_text_without_an_encoding_is_found(code, found):
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert _opens_text_in_the_locale(call) is found


@pytest.fixture
def ascii_locale(tmp_path):
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        with open(tmp_path / "probe", "w") as probe:  # noqa: PTH123, PLW1514
            if "utf" in probe.encoding.lower():
                pytest.skip("Python is in its UTF-8 mode, where the locale has no say")
        yield
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


@pytest.mark.parametrize(
    ("configuration", "data"),
    [
        ("text.TextDataset", TEXT),
        ({"type": "json.JSONDataset", "save_args": {"ensure_ascii": False}}, {"a": TEXT}),
        ({"type": "pandas.CSVDataset", "save_args": {"index": False}}, pd.DataFrame({"a": [TEXT]})),
        ("yaml.YAMLDataset", {"a": TEXT}),
    ],
)
def test_catalog_entries_are_utf8_in_an_ascii_locale(tmp_path, ascii_locale, configuration, data):
    path = tmp_path / "text"
    dataset = WholeDataset(filepath=str(path), dataset=configuration)
    dataset.save(data)
    loaded = dataset.load()
    assert loaded.equals(data) if isinstance(data, pd.DataFrame) else loaded == data
    if "yaml" not in str(configuration):
        assert TEXT in path.read_bytes().decode("utf-8")


def test_an_encoding_that_is_asked_for_is_heeded(tmp_path):
    path = tmp_path / "text"
    asked = {"encoding": "latin-1"}
    dataset = WholeDataset(
        filepath=str(path),
        dataset={
            "type": "text.TextDataset",
            "fs_args": {"open_args_save": asked, "open_args_load": asked},
        },
    )
    dataset.save("5 °C")
    assert path.read_bytes() == b"5 \xb0C"
    assert dataset.load() == "5 °C"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_a_terminal_lacks_are_replaced(monkeypatch, encoding):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    print_in_any_locale()
    for stream in streams:
        stream.write("Δ850 hPa")
        stream.flush()
        assert stream.buffer.getvalue() == b"?850 hPa"
