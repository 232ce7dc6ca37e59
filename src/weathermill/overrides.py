"""Parameters on the command line: ``--params name=value,name=value``, with lists and mappings as in YAML."""

from __future__ import annotations

import json
from typing import Any

import click
from omegaconf import OmegaConf
from yaml import YAMLError

_OPENING, _CLOSING = "[{", "]}"
# Elsewhere a quotation mark is part of a word, as in YAML.
_BEFORE_QUOTES = "=,:[{"


def split_overrides(text: str) -> list[str]:
    """Split at the commas that are in no brackets and in no quotes.

    >>> split_overrides("ingest.levels=[500, 850],train.epochs=5")
    ['ingest.levels=[500, 850]', 'train.epochs=5']
    """
    items, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and items[-1].rstrip()[-1:] in _BEFORE_QUOTES:
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            items.append("")
            continue
        items[-1] += character
    return [item.strip() for item in items if item.strip()]


def parse_overrides(text: str) -> dict[str, Any]:
    """Read ``--params``: dotted names become nested mappings, and values are read as YAML.

    Raises
    ------
    ValueError
        If an item has no ``=`` or no name, or its value is no YAML.
    """
    items = split_overrides(text)
    for item in items:
        name, equals, _ = item.partition("=")
        if not equals or not name.strip():
            raise ValueError(
                f"{item!r} is not of the form name=value, such as train.epochs=5 or ingest.levels=[500,850]"
            )
        try:
            OmegaConf.from_dotlist([item])
        except YAMLError:
            raise ValueError(
                f"the value of {item!r} cannot be read as YAML; see its brackets and quotes"
            ) from None
    return OmegaConf.to_container(OmegaConf.from_dotlist(items))


def format_override(name: str, value: Any) -> str:
    """Return ``name=value`` such that `parse_overrides` gives the value back."""
    plain = f"{name}={value}"
    if isinstance(value, str):
        try:
            if (
                split_overrides(plain) == [plain]
                and OmegaConf.select(OmegaConf.from_dotlist([plain]), name) == value
            ):
                return plain
        except YAMLError:
            pass
    return f"{name}={json.dumps(value, default=str)}"


def params_option(ctx: click.Context, param: click.Parameter, value: Any) -> dict[str, Any]:
    """Read the option ``--params``; a mapping, from ``--config``, is taken as it is."""
    if isinstance(value, dict):
        return value
    try:
        return parse_overrides(value or "")
    except ValueError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from None
