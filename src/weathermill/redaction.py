"""Keeping credentials out of everything that is shown or stored.

Three kinds are known: the values in ``credentials.yml``, once `hide_credentials` has seen them; values that are called
a secret, token, password or key wherever else they are set, once `hide_named` has seen them, such as options of storage
in the catalog and variables of the environment; and what URLs carry: a name and password before the host, and signed
or keyed query parameters.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
_SHORTEST = 4
#: Of values that are only known by what they are called.
_SHORTEST_NAMED = 8
_NAME = re.compile(r"(?i)(secret|token|passw(or)?d|credential|api_?key|access_?key|account_?key|sas)")
_secrets: set[str] = set()

_USER = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_QUERY = re.compile(
    r"(?i)([?&](?:[\w.-]*(?:token|secret|password|passwd|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*"
    r"|sig|key)=)[^&\s'\"]+"
)


def redact(text: str) -> str:
    """Replace every known credential in a text."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(HIDDEN, text))
    return text


def redact_values(value: Any) -> Any:
    """Replace every known credential in the texts of nested lists and mappings."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return value


def hide_credentials(credentials: Mapping[str, Any]) -> None:
    """Have the values of credentials, at any depth, hidden from now on, in log messages too.

    Texts of fewer than four characters are left alone: they would hide half of everything.
    """
    _secrets.update(leaf for leaf in _leaves(credentials) if len(leaf) >= _SHORTEST)
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    for logger in loggers:
        for handler in logger.handlers:
            if not any(isinstance(known, RedactingFilter) for known in handler.filters):
                handler.addFilter(RedactingFilter())


def hide_named(settings: Mapping[str, Any]) -> None:
    """Have values hidden that are called a secret, token, password or key, at any depth; `hide_credentials` does it.

    Values of fewer than eight characters, and paths, are left alone.
    """
    found = list(_named(settings))
    hide_credentials({str(i): value for i, value in enumerate(found)})


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(item, str) and _NAME.search(str(name)):
                if len(item) >= _SHORTEST_NAMED and not item.startswith(("/", "~", "./")):
                    yield item
            else:
                yield from _named(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _named(item)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value


class RedactingFilter(logging.Filter):
    """Lets every record pass, without credentials in its message or traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record."""
        message = record.getMessage()
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = redact(text)
        return True
