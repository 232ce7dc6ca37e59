"""Opening the project, or the installed package where there is no project, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kedro.utils import find_kedro_project

from weathermill.errors import ConfigurationError

if TYPE_CHECKING:
    from kedro.framework.session import KedroSession


def working_folder() -> Path:
    """The folder of the project that the current folder belongs to; else the current folder, for an installed package.

    Relative paths of the catalog and of ``mlflow.yml`` count from there.
    """
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def is_packaged() -> bool:
    """Whether the current folder belongs to no project, so that the installed package runs."""
    return find_kedro_project(Path.cwd()) is None


def require_configuration(conf_source: str | None) -> None:
    """Refuse to go on without a configuration.

    Raises
    ------
    ConfigurationError
        If none is named and there is no folder ``conf`` in the working folder.
    """
    folder = working_folder()
    if conf_source is None and not (folder / "conf").is_dir():
        raise ConfigurationError(
            "there is no configuration here, and this folder belongs to no Kedro project",
            where=str(folder),
            remedy="Change to the folder that holds the project's pyproject.toml and conf/, or name the configuration: "
            "--conf-source=FOLDER, or the archive that `kedro package` makes, --conf-source=conf-weathermill.tar.gz.",
        )


def open_session(env: str | None, conf_source: str | None = None) -> KedroSession:
    """Open a session of the project, or of the installed package.

    Parameters
    ----------
    env
        The environment; the one that is the default when None.
    conf_source
        Folder, archive or URL of the configuration; ``conf`` of the project when None.

    Raises
    ------
    ConfigurationError
        If there is no configuration.
    """
    from kedro.framework.project import configure_project
    from kedro.framework.session import KedroSession
    from kedro.framework.startup import bootstrap_project

    require_configuration(conf_source)
    folder = working_folder()
    if is_packaged():
        configure_project("weathermill")
    else:
        bootstrap_project(folder)
    return KedroSession.create(folder, env=env, conf_source=conf_source)
