"""What the documents promise: commands parse, parameters exist, scripts and links are there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from kedro.framework.cli.cli import KedroCLI
from pydantic import BaseModel

from weathermill import errors
from weathermill.cli import main, run
from weathermill.parameters import Parameters
from weathermill.pipeline_registry import register_pipelines

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What comes after the dot in names of files, not of parameters.
_FILES = ("json", "safetensors", "partial", "previous", "nc", "zarr", "csv", "html")
_INLINE = re.compile(r"`([^`]+)`", re.DOTALL)


def commands_in(text: str) -> list[list[str]]:
    """Words of every command of ours, from blocks and from text; what is typed after ``$``, without comments."""
    # A line of a page is cut where it is full, also within a command.
    spans = [" ".join(span.split()) for span in _INLINE.findall(_BLOCK.sub("", text))]
    candidates = [span for span in spans if not span.startswith("make ") or len(span.split()) == 2]
    for language, block in _BLOCK.findall(text):
        if language not in ("console", "bash", "sh", ""):
            continue
        lines = block.replace("\\\n", "").splitlines()
        candidates += [
            line.removeprefix("$ ") for line in lines if line.startswith("$ ") or "$ " not in block
        ]
    found = []
    for candidate in candidates:
        for part in candidate.split(" && "):
            # Comments hold apostrophes.
            part = re.sub(r"\s#.*", "", part)
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if words and Path(words[0]).name in ("kedro", "weathermill", "python", "make"):
                found.append(words)
    return found


def all_commands():
    for page in PAGES:
        for words in commands_in(page.read_text(encoding="utf-8")):
            yield pytest.param(page.name, words, id=f"{page.name}: {' '.join(words)}"[:90])


def parsed(command: click.Command, words: list[str]) -> dict:
    """Parameters as click reads them, without running anything."""
    return command.make_context(command.name, list(words)).params


def known_parameter(name: str) -> bool:
    model = Parameters
    for part in name.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return model is dict or isinstance(model, str)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), "free")
    return True


def check_kedro(words: list[str]) -> None:
    if words[0] != "run":
        assert words[0] in KedroCLI(PROJECT).list_commands(click.Context(main)) or words[0] in (
            "viz",
            "mlflow",
        )
        return
    options = parsed(run, words[1:])
    names = [*options["pipelines"], *([options["pipeline"]] if options["pipeline"] else [])]
    assert set(names) <= set(register_pipelines())
    if options["env"] and "<" not in options["env"]:
        # A case of the project, or one whose files a page shows.
        shown = f"# conf/{options['env']}/catalog.yml"
        assert (PROJECT / "conf" / options["env"]).is_dir() or any(
            shown in page.read_text(encoding="utf-8") for page in PAGES
        ), f"there is no case {options['env']}"
    for name in _flat(options["params"]):
        assert known_parameter(name), f"there is no parameter {name}"


def _flat(values: dict, prefix: str = "") -> list[str]:
    return [
        full
        for key, value in values.items()
        for full in (_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"])
    ]


@pytest.mark.parametrize(("page", "words"), all_commands())
def test_commands_parse(page, words):
    program, rest = Path(words[0]).name, words[1:]
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in rest if "=" not in word} <= targets
    elif program == "python":
        if rest and rest[0].endswith(".py"):
            assert (PROJECT / rest[0]).is_file()
    elif program == "kedro" and rest:
        check_kedro(rest)
    elif program == "weathermill" and rest:
        assert rest[0] in main.commands
        # The name of a command alone is a mention.
        if rest[1:]:
            arguments = [word for word in rest[1:] if not word.startswith("<")] or ["x"]
            parsed(main.commands[rest[0]], arguments)


def test_there_are_commands_to_check():
    programs = [param.values[1][0] for param in all_commands()]
    assert programs.count("kedro") > 15 and programs.count("weathermill") > 8


def test_a_wrong_command_would_be_noticed():
    with pytest.raises(click.NoSuchOption):
        check_kedro(["run", "--dry-runn"])
    with pytest.raises(AssertionError, match=r"train\.epoch"):
        check_kedro(["run", "--params", "train.epoch=3"])
    with pytest.raises(AssertionError, match="no case nowhere"):
        check_kedro(["run", "--env=nowhere"])
    assert commands_in("see `kedro run\n--dry-run`") == [["kedro", "run", "--dry-run"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            heads = re.findall(r"^#+ +(.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:src|scripts|tests|benchmarks|conf|docs|notebooks)/[\w./-]+)`", text):
        assert (PROJECT / name).exists(), f"{page.name} names {name}"


def test_remedies_name_commands_and_parameters_that_there_are():
    for cls in vars(errors).values():
        remedy = getattr(cls, "default_remedy", "")
        for words in commands_in(remedy):
            if words[0] == "kedro":
                check_kedro(words[1:])
            else:
                assert words[1] in main.commands
        for name in re.findall(r"`([a-z_]+\.[a-z_.]+)(?:=\S+)?`", remedy):
            assert known_parameter(name), f"{cls.__name__} names {name}"


def strings_in(path: Path) -> list[str]:
    """All texts of a module but for f-strings' values, which become ``x``."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    return [
        node.value
        if isinstance(node, ast.Constant)
        else "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts)
    ]


def parameters_in(text: str) -> list[str]:
    """Dotted names of parameters, such as ``train.epochs``; names of files and of templates are none."""
    sections = "|".join(name for name in Parameters.model_fields)
    names = re.findall(rf"(?<![\w./])((?:{sections})\.[a-z_]+(?:\.[a-z_]+)*)(?![\w/(])", text)
    return [name for name in names if name.rpartition(".")[2] not in (*_FILES, "x")]


@pytest.mark.parametrize(
    "path",
    sorted((PROJECT / "src").rglob("*.py")),
    ids=lambda path: path.relative_to(PROJECT / "src" / "weathermill").as_posix(),
)
def test_messages_name_commands_and_parameters_that_there_are(path):
    for text in strings_in(path):
        # A text without a blank is a key, such as that of an MLflow parameter.
        for name in parameters_in(text) if " " in text else ():
            assert known_parameter(name), f"{name} in {text!r}"
        for words in commands_in(text):
            if Path(words[0]).name == "kedro" and not {"--pipelines=x", "--pipelines=<name>"} & set(words):
                check_kedro(words[1:])
            elif Path(words[0]).name == "weathermill" and len(words) > 1:
                assert words[1] in main.commands, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_parameters_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in parameters_in(text):
        assert known_parameter(name), name
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        contents = yaml.safe_load(block)
        for name in _flat({key: value for key, value in contents.items() if key in Parameters.model_fields}):
            # Below a parameter that is a mapping, names are the user's.
            assert known_parameter(name) or known_parameter(name.rpartition(".")[0]), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_and_modules_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for group in re.findall(r"\.\[([\w,]+)\]'", text) for name in group.split(",")} <= set(
        extras
    )
    imports = [
        line for block in _BLOCK.findall(text) for line in block[1].splitlines() if block[0] == "python"
    ]
    for line in imports:
        if match := re.fullmatch(r"from (weathermill[\w.]*) import ([\w, ]+)", line.strip()):
            module = importlib.import_module(match[1])
            for name in match[2].split(","):
                assert hasattr(module, name.strip()), line
    for name in re.findall(r"`(weathermill(?:\.\w+)+)`", text):
        module, _, last = name.rpartition(".")
        assert importlib.util.find_spec(name) or hasattr(importlib.import_module(module), last), name


def test_every_command_has_help():
    for name in main.commands:
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0 and len(result.output) > 100


def test_yaml_in_pages_parses():
    for page in PAGES:
        for block in re.findall(
            r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            yaml.safe_load(block)
