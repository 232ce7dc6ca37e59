"""Write docs/errors.md: every error that Weathermill raises, from the classes themselves."""

from __future__ import annotations

import html
import inspect
from pathlib import Path

from weathermill import errors

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"

HEAD = """# Errors

Every error that Weathermill raises on purpose has a code. Its message says what is wrong and where; the line with an
arrow says what to do. `WEATHERMILL_TRACEBACK=1` shows the traceback as well. This page is written by
`python scripts/write_error_page.py` from `src/weathermill/errors.py`.

| code | error | meaning | what to do |
|---|---|---|---|
"""


def render() -> str:
    """The page as text."""
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value)
        and issubclass(value, errors.WeathermillError)
        and value is not errors.WeathermillError
    ]
    rows = [
        f"| {cls.code} | `{cls.__name__}` | {html.escape(' '.join(inspect.getdoc(cls).split()), quote=False)} "
        f"| {html.escape(cls.default_remedy or 'As the message says.', quote=False)} |\n"
        for cls in sorted(classes, key=lambda cls: cls.code)
    ]
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
