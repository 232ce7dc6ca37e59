"""The digest of a node's code sees what matters and nothing else."""

from __future__ import annotations

import importlib
import sys

import pytest

from weathermill.incremental import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the place of ours: nodes imports library imports deeper; tracking has no effect."""
    folder = tmp_path / "mill"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "deeper.py").write_text("FACTOR = 2\n")
    (folder / "library.py").write_text(
        '"""Doc."""\nfrom mill.deeper import FACTOR\n\ndef scale(x):\n    """Doc."""\n    return x * FACTOR\n'
    )
    (folder / "tracking.py").write_text("LEVEL = 1\n")
    (folder / "aside.py").write_text("ASIDE = 1\n")
    (folder / "nodes.py").write_text(
        "from mill import library\nimport mill.tracking\n\ndef node(x):\n    return library.scale(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code, "PACKAGE", "mill")
    yield folder
    for name in [name for name in sys.modules if name == "mill" or name.startswith("mill.")]:
        del sys.modules[name]
    clear()


def clear():
    for function in (code._imports, code._source, code._tree, code._essence):
        function.cache_clear()
    importlib.invalidate_caches()


def digest():
    clear()
    return code.code_digest(importlib.import_module("mill.nodes").node)


def edit(folder, module, old, new):
    path = folder / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_docstrings_and_layout_do_not_count(package):
    before = digest()
    edit(package, "library", '"""Doc."""\nfrom', '"""Another."""\n# why\n\nfrom')
    edit(package, "library", '    """Doc."""\n', '    """Longer,\n    of two lines."""\n')
    edit(package, "library", "x * FACTOR", "(x  *  FACTOR)  # scaled")
    assert digest() == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("nodes", "library.scale(x)", "library.scale(x) + 1"),
        ("library", "x * FACTOR", "x / FACTOR"),
        ("deeper", "FACTOR = 2", "FACTOR = 3"),
    ],
)
def test_a_change_counts_wherever_it_is_imported_from(package, module, old, new):
    before = digest()
    edit(package, module, old, new)
    assert digest() != before


@pytest.mark.parametrize("module", ["tracking", "aside"])
def test_what_has_no_effect_or_is_not_imported_does_not_count(package, module):
    before = digest()
    edit(package, module, " = 1", " = 7")
    assert digest() == before


def test_a_relative_import_counts(package):
    edit(package, "library", "from mill.deeper import FACTOR", "from .deeper import FACTOR")
    before = digest()
    edit(package, "deeper", "FACTOR = 2", "FACTOR = 5")
    assert digest() != before


def test_functions_from_elsewhere_have_none():
    assert code.code_digest(len) == ""


def test_the_digest_of_our_own_nodes_is_stable_and_differs():
    clear()
    from weathermill.pipelines.ingest.nodes import ingest_fields
    from weathermill.pipelines.train.nodes import train_network

    assert (
        code.code_digest(ingest_fields) == code.code_digest(ingest_fields) != code.code_digest(train_network)
    )
