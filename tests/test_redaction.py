"""Credentials stay out of what is shown."""

from __future__ import annotations

import logging

import pytest

from weathermill import redaction
from weathermill.errors import SourceNotFoundError
from weathermill.redaction import RedactingFilter, hide_credentials, hide_named, redact, redact_values


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", set())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pw123@host/x.zarr", "https://***@host/x.zarr"),
        ("s3://key@bucket", "s3://***@bucket"),
        ("https://h/x?sig=abc%2F&v=1", "https://h/x?sig=***&v=1"),
        (
            "GET https://h/x?v=1&X-Amz-Signature=abc' failed",
            "GET https://h/x?v=1&X-Amz-Signature=***' failed",
        ),
        ("https://h/x?access_token=abc&key=def", "https://h/x?access_token=***&key=***"),
        ("mail me@host, keyword=value", "mail me@host, keyword=value"),
        ("https://h/a@b", "https://h/a@b"),
    ],
)
def test_what_urls_carry_is_hidden(text, clean):
    assert redact(text) == clean


def test_values_of_credentials_are_hidden_at_any_depth():
    hide_credentials(
        {"store": {"client_kwargs": {"token": "planted-1"}, "keys": ["planted-2"]}, "n": {"x": "no"}}
    )
    assert redact("planted-1 and planted-2, no") == "*** and ***, no"
    assert redact_values({"a": ["x planted-1"], "b": 3}) == {"a": ["x ***"], "b": 3}


def test_messages_and_tracebacks_in_logs_are_clean():
    hide_credentials({"a": {"token": "planted-1"}})
    record = logging.LogRecord("n", logging.ERROR, "f", 1, "with %s", ("planted-1",), None)
    try:
        raise ValueError("bad planted-1")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    RedactingFilter().filter(record)
    text = logging.Formatter().format(record)
    assert "planted-1" not in text and "with ***" in text and "bad ***" in text


def test_errors_of_ours_are_clean():
    hide_credentials({"a": {"token": "planted-1"}})
    error = SourceNotFoundError("nothing at https://me:planted-1@h/x", where="https://me:other@h/x")
    assert "planted-1" not in str(error) and "other" not in str(error)


def test_values_are_hidden_that_are_called_secrets():
    hide_named(
        {
            "raw_fields": {
                "type": "RawFieldsDataset",
                "load_args": {
                    "storage_options": {
                        "key": "short",
                        "secret": "planted-1",
                        "client_kwargs": {"token": "planted-2"},
                    }
                },
            },
            "AWS_SECRET_ACCESS_KEY": "planted-3",
            "DB_PASSWORD": "1234567",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
            "HOME": "planted-0",
        }
    )
    assert redact("planted-1 planted-2 planted-3 planted-0") == "*** *** *** planted-0"
    assert (
        redact("1234567 RawFieldsDataset short /var/run/token")
        == "1234567 RawFieldsDataset short /var/run/token"
    )
