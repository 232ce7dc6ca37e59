"""The version of the code that a node's result depends on."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGE = "weathermill"

#: Code that changes what is told, not what is computed. Parameters' values are digested by themselves.
WITHOUT_EFFECT = (
    "errors",
    "progress",
    "parameters",
    "tracking",
    "hooks",
    "settings",
    "cli",
    "incremental",
    "datasets",
    "redaction",
)


def code_digest(function: Callable[..., object]) -> str:
    """Digest the code that a function of this package may run.

    That is its own module and all modules of the package that it imports, directly or not, without comments,
    docstrings and formatting.

    Returns
    -------
    str
        SHA-256 in hexadecimal; empty for a function from elsewhere, whose code is not known here.
    """
    module = getattr(function, "__module__", "") or ""
    if not module.startswith(f"{PACKAGE}."):
        return ""
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        digest.update(f"{name}\0{_essence(name)}\0".encode())
    return digest.hexdigest()


def _closure(module: str) -> set[str]:
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_imports(name))
    return seen


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (origin := _origin(node, module)):
            found.add(origin)
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return tuple(sorted(name for name in found if _has_effect(name) and _source(name) is not None))


def _origin(node: ast.ImportFrom, module: str) -> str:
    """The module that is imported from; a relative one seen from ``module``."""
    if not node.level:
        return node.module or ""
    source = _source(module)
    above = node.level - (1 if source is not None and source.name == "__init__.py" else 0)
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - above], *([node.module] if node.module else [])])


def _has_effect(module: str) -> bool:
    package, _, rest = module.partition(".")
    return package == PACKAGE and bool(rest) and rest.split(".")[0] not in WITHOUT_EFFECT


@functools.cache
def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@functools.cache
def _tree(module: str) -> ast.Module:
    source = _source(module)
    return ast.parse(source.read_text(encoding="utf-8")) if source else ast.Module(body=[], type_ignores=[])


@functools.cache
def _essence(module: str) -> str:
    tree = _tree(module)
    for node in _documented(tree):
        first = node.body[0] if node.body else None
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            first.value.value = ""
    return ast.dump(tree)


def _documented(
    tree: ast.Module,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
