"""The version of the code that a node's result depends on."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from weathermill.models.own_networks import network_modules

PACKAGE = "weathermill"
_UNKNOWN = uuid.uuid4().hex

#: Code that changes what is told, not what is computed. Parameters' values are digested by themselves, and dataset
#: types with the catalog entries that are of them, see `dataset_digest`.
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
    """Digest the code that a function may run.

    That is its own module and all modules of this package, of its own package and of the user that it imports, directly
    or not, without comments, docstrings and formatting.

    Returns
    -------
    str
        SHA-256 in hexadecimal; empty for a function of an installed package, whose version is on record elsewhere.
    """
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", "") or ""
    return modules_digest([module]) if _is_own(module) else ""


def dataset_digest(kinds: Iterable[type]) -> str:
    """Digest the code of dataset types, and all that they import of this package and of the user.

    Returns
    -------
    str
        SHA-256 in hexadecimal; empty where all are of installed packages, such as Kedro's.
    """
    return modules_digest(sorted({kind.__module__ for kind in kinds if _is_own(kind.__module__)}), "datasets")


def modules_digest(modules: Collection[str], *with_effect: str) -> str:
    """Digest modules and all modules that they import, without comments, docstrings and formatting.

    Parameters
    ----------
    modules
        Names; also of installed packages, of which then the modules of the same package count.
    with_effect
        Parts of this package that count as well although they are in `WITHOUT_EFFECT`.

    Returns
    -------
    str
        SHA-256 in hexadecimal; empty without modules.
    """
    if not modules:
        return ""
    digest = hashlib.sha256()
    for name in sorted(_closure(modules, with_effect)):
        text = _essence(name) if _source(name) is not None else _live_source(name)
        digest.update(f"{name}\0{text}\0".encode())
    return digest.hexdigest()


def network_digest(function: Callable[..., object], name: str | None, module: str | None) -> str:
    """Digest the code of networks from outside of this package that a function may build.

    Parameters
    ----------
    function
        Of a node.
    name
        Of the network; all that are known where it is only known once a model is loaded.
    module
        Which the parameters name.

    Returns
    -------
    str
        SHA-256 in hexadecimal; empty where there are none, or the function builds no network.
    """
    modules = sorted(network_modules(name, module))
    if not modules or not depends_on(function, f"{PACKAGE}.models.registry"):
        return ""
    return modules_digest(modules)


def depends_on(function: Callable[..., object], module: str) -> bool:
    """Whether a function may run code of a module of this package."""
    origin = getattr(function, "__module__", "") or ""
    return _is_own(origin) and module in _closure([origin])


def _closure(modules: Collection[str], with_effect: Collection[str] = ()) -> set[str]:
    roots = {module.partition(".")[0] for module in modules}
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(
                found
                for found in _imports(name)
                if (found.partition(".")[0] in roots or _is_own(found))
                and _has_effect(found, with_effect)
                and _source(found) is not None
            )
    return seen


def _is_own(module: str) -> bool:
    """Whether a module is of this package or of the user: neither of Python nor installed from elsewhere."""
    package = module.partition(".")[0]
    return package == PACKAGE or (bool(package) and _is_the_users(package))


@functools.cache
def _is_the_users(package: str) -> bool:
    if package in sys.stdlib_module_names or package == "__main__":
        return False
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, AttributeError, ValueError):
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    folders = [Path(place) for place in places if place and place not in ("built-in", "frozen")]
    return bool(folders) and not any({"site-packages", "dist-packages"} & set(f.parts) for f in folders)


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (origin := _origin(node, module)):
            found.add(origin)
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return tuple(sorted(found))


def _origin(node: ast.ImportFrom, module: str) -> str:
    """The module that is imported from; a relative one seen from ``module``."""
    if not node.level:
        return node.module or ""
    source = _source(module)
    above = node.level - (1 if source is not None and source.name == "__init__.py" else 0)
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - above], *([node.module] if node.module else [])])


def _has_effect(module: str, with_effect: Collection[str] = ()) -> bool:
    package, _, rest = module.partition(".")
    if package != PACKAGE:
        return True
    part = rest.split(".")[0]
    return bool(rest) and (part not in WITHOUT_EFFECT or part in with_effect)


def _live_source(module: str) -> str:
    """Source of what a module without a file defines, such as the cells of a notebook.

    Where it cannot be had, nothing made with it is taken for unchanged by another process.
    """
    names = vars(sys.modules[module]) if module in sys.modules else {}
    own = [value for value in names.values() if getattr(value, "__module__", "") == module]
    methods = [value for kind in own if isinstance(kind, type) for value in vars(kind).values()]
    functions = [value for value in (*own, *methods) if inspect.isfunction(value)]
    try:
        return "\n".join(sorted(inspect.getsource(function) for function in functions))
    except OSError:
        return _UNKNOWN


@functools.cache
def _source(module: str) -> Path | None:
    if module == "__main__":
        file = getattr(sys.modules[module], "__file__", None) or ""
        return Path(file) if file.endswith(".py") else None
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
