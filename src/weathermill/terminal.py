"""Standard output and standard error, in whatever encoding the terminal has."""

from __future__ import annotations

import io
import sys


def print_in_any_locale() -> None:
    """Have characters that the terminal's encoding lacks printed as ``?`` instead of ending the command.

    With ``LC_ALL=C`` or code page 1252 a table with a Greek letter would otherwise raise `UnicodeEncodeError` after the
    work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
