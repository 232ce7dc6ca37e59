"""``python -m weathermill``: what ``kedro run`` does, for the installed package where there is no project."""

from __future__ import annotations

import sys
from typing import Any

from kedro.framework.project import configure_project

from weathermill.cli import run


def main(*args: Any, **kwargs: Any) -> Any:
    """Run pipelines; the arguments are those of a click command, such as ``main(["--pipelines=train"])``."""
    configure_project("weathermill")
    # As in Kedro's template: a session of Python must not end with the command.
    kwargs.setdefault("standalone_mode", not hasattr(sys, "ps1"))
    return run(*args, **kwargs)


if __name__ == "__main__":
    main()
