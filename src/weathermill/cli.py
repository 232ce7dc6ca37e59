"""Commands: ``kedro run`` with errors told plainly, and ``weathermill`` for all that is no pipeline run."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run


def _plainly(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that an error of ours is told in a few lines, without a traceback, and exits with 1."""

    @functools.wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from weathermill.datasets.local import plain_error

        try:
            return callback(*args, **kwargs)
        except KeyboardInterrupt:
            click.secho("interrupted", fg="red", err=True)
            sys.exit(130)
        except Exception as error:
            known = plain_error(error)
            if known is None or os.environ.get("WEATHERMILL_TRACEBACK"):
                raise
            click.secho(f"\n{type(known).__name__}: {known}", fg="red", err=True)
            click.echo("(set WEATHERMILL_TRACEBACK=1 for the traceback)", err=True)
            sys.exit(1)

    return wrapped


@click.group(name="weathermill")
def cli() -> None:
    """Commands of this project that Kedro finds here."""


run = click.Command(
    "run", callback=_plainly(kedro_run.callback), params=kedro_run.params, help=kedro_run.help
)
cli.add_command(run)


@click.group()
@click.version_option(package_name="weathermill")
def main() -> None:
    """Weathermill: from gridded atmospheric data to a trained, verified forecast network.

    Pipelines are run with `kedro run`; the commands here are for all else.
    """
