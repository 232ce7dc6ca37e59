"""The digest of a node's code sees what matters and nothing else."""

from __future__ import annotations

import functools
import importlib
import linecache
import sys
import types

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
    for function in (code._imports, code._source, code._tree, code._essence, code._is_the_users):
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


@pytest.fixture
def users_module(package):
    """A module of the user's beside the package, which imports another one and a package of Python's."""
    (package.parent / "layers.py").write_text("import json\nWIDTH = 1\n")
    (package.parent / "own.py").write_text("import layers\n\nclass Kind:\n    width = layers.WIDTH\n")
    yield package.parent
    for name in ("own", "layers"):
        sys.modules.pop(name, None)


def test_code_of_the_users_counts_with_what_it_imports(users_module):
    def now():
        clear()
        return code.modules_digest(["own"])

    before = now()
    edit(users_module, "layers", "WIDTH = 1", "WIDTH = 2")
    changed = now()
    edit(users_module, "own", "class Kind", "class  Kind")
    assert before != changed == now()
    assert code._closure(["own"]) == {"own", "layers"}


def test_functions_of_the_users_have_a_digest(users_module):
    clear()
    kind = importlib.import_module("own").Kind
    assert code.code_digest(kind) == code.modules_digest(["own"]) != ""
    assert code.code_digest(functools.partial(kind)) == code.code_digest(kind)


def test_code_of_dataset_types_counts_although_nodes_that_import_it_do_not_depend_on_it(package):
    (package / "datasets.py").write_text("from mill.deeper import FACTOR\n\nclass Store:\n    pass\n")
    edit(package, "nodes", "import mill.tracking", "import mill.datasets")
    clear()
    kind = importlib.import_module("mill.datasets").Store
    node, dataset = digest(), code.dataset_digest([kind])
    edit(package, "datasets", "    pass", "    scale = FACTOR")
    assert digest() == node
    assert (changed := code.dataset_digest([kind])) != dataset
    edit(package, "deeper", "FACTOR = 2", "FACTOR = 3")
    clear()
    assert code.dataset_digest([kind]) != changed


def test_dataset_types_of_installed_packages_have_none():
    from kedro.io import MemoryDataset

    assert code.dataset_digest([MemoryDataset]) == ""


def test_the_code_of_an_own_network_counts_for_nodes_that_build_networks(users_module):
    from weathermill.pipelines.ingest.nodes import ingest_fields
    from weathermill.pipelines.train.nodes import train_network

    code.PACKAGE = "weathermill"  # The fixture of the package undoes it.

    def now(function, module="own"):
        return code.network_digest(function, "unet", module)

    clear()
    before = now(train_network)
    assert before and now(ingest_fields) == "" == now(train_network, None)
    edit(users_module, "layers", "WIDTH = 1", "WIDTH = 2")
    clear()
    assert now(train_network) != before


def test_what_a_notebook_defines_counts_by_its_source(monkeypatch):
    def register(text):
        module = types.ModuleType("cells")
        lines = text.splitlines(keepends=True)
        linecache.cache["<cell>"] = (len(text), None, lines, "<cell>")
        exec(compile(text, "<cell>", "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, "cells", module)
        clear()
        return code.modules_digest(["cells"])

    first = register("def build():\n    return 1\n")
    assert register("def build():\n    return 1\n") == first
    assert register("def build():\n    return 2\n") != first
