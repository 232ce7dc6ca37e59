"""Errors: unique codes, messages that say what, where and what to do, and a page that lists them all."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

from weathermill import errors

PROJECT = Path(__file__).resolve().parents[1]
CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.WeathermillError)
]


def test_codes_are_unique():
    codes = [cls.code for cls in CLASSES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_message_says_what_where_and_what_to_do(cls):
    message = str(cls("it is wrong", where="here.nc", remedy="mend it"))
    assert message == f"{cls.code} it is wrong [here.nc]\n  -> mend it"
    assert inspect.getdoc(cls)


@pytest.mark.parametrize("cls", CLASSES[1:], ids=lambda cls: cls.__name__)
def test_every_class_says_what_to_do_where_a_raise_does_not(cls):
    assert len(cls.default_remedy.split()) >= 4
    assert str(cls("it is wrong")).endswith(cls.default_remedy)


def test_the_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location(
        "write_error_page", PROJECT / "scripts" / "write_error_page.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.render(), (
        "run: python scripts/write_error_page.py"
    )
