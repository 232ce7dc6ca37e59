"""Commands: ``kedro run`` with errors told plainly, and ``weathermill`` for all that is no pipeline run."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import validate_conf_source

from weathermill.overrides import params_option
from weathermill.sessions import is_packaged, open_session, require_configuration
from weathermill.terminal import print_in_any_locale

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext

    from weathermill.incremental.selection import Selection
    from weathermill.incremental.verify import Finding


def _plainly(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that an error is told in a few lines, without a traceback, and exits with 1."""

    @functools.wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        print_in_any_locale()
        try:
            return callback(*args, **kwargs)
        except KeyboardInterrupt:
            click.secho("interrupted", fg="red", err=True)
            sys.exit(130)
        except Exception as error:
            if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort):
                raise
            from weathermill.faults import describe

            click.secho(f"\n{describe(error)}", fg="red", err=True)
            sys.exit(1)

    return wrapped


@click.group(name="weathermill")
def cli() -> None:
    """Commands of this project that Kedro finds here."""


def _run(dry_run: bool, traceback: bool, **options: Any) -> Any:
    """Run; where that ends early, in whatever way, say with which command it goes on."""
    try:
        return _run_plainly(dry_run, traceback, **options)
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, int) and code and not dry_run and (text := _how_to_go_on(options, code)):
            click.secho(text, err=True)
        raise


def _how_to_go_on(options: dict[str, Any], code: int) -> str:
    from kedro.framework.project import settings

    from weathermill.incremental.ending import going_on
    from weathermill.incremental.hook import IncrementalHook

    hook = next((entry for entry in settings.HOOKS if isinstance(entry, IncrementalHook)), None)
    text = "" if hook is None else going_on(options, code, hook.progress())
    return text.replace("kedro run", "python -m weathermill") if is_packaged() else text


@_plainly
def _run_plainly(dry_run: bool, traceback: bool, **options: Any) -> Any:
    from weathermill.faults import VARIABLE
    from weathermill.incremental.selection import Selection

    if traceback:
        os.environ[VARIABLE] = "1"
    if options["pipeline"] and options["pipelines"]:
        raise click.UsageError(
            "--pipeline and --pipelines cannot be used together: --pipelines takes several."
        )
    require_configuration(options["conf_source"])
    selection = Selection.of(options)
    selection.pipeline()
    _require_runner(options["runner"])
    if dry_run:
        return _tell_plan(options, selection)
    options["runner"] = options["runner"] or "weathermill.incremental.runner.IncrementalRunner"
    return kedro_run.callback(**options)


def _require_runner(name: str | None) -> None:
    """Refuse a runner that cannot work before it is made: `ParallelRunner` starts a process then."""
    from kedro.utils import load_obj

    from weathermill.errors import ConfigurationError
    from weathermill.incremental.runner import refuse_pools

    if name is None:
        return
    try:
        kind = load_obj(name, "kedro.runner")
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"there is no runner {name!r}: {error}",
            where="--runner",
            remedy="Leave --runner out, or name a class: SequentialRunner, or package.module.Class.",
        ) from error
    refuse_pools(kind)


def _tell_plan(options: dict[str, Any], selection: Selection) -> None:
    from kedro.framework.project import settings

    from weathermill.incremental.status import describe_plan

    with settings.SESSION_CLASS.create(
        env=options["env"], conf_source=options["conf_source"], runtime_params=options["params"]
    ) as session:
        click.echo(describe_plan(session.load_context(), selection, options["load_versions"]))


_PARAMS = click.Option(
    ["--params"],
    type=click.UNPROCESSED,
    default="",
    callback=params_option,
    help='Parameters that win over conf/, as name=value with commas between, in quotes where there are lists: "train.epochs=5,ingest.levels=[500,850]".',
)

run = click.Command(
    "run",
    callback=_run,
    params=[
        *(_PARAMS if option.name == "params" else option for option in kedro_run.params),
        click.Option(
            ["--dry-run"], is_flag=True, help="Only say what would run, and why; what stands, and since when."
        ),
        click.Option(["--traceback"], is_flag=True, help="Show the traceback of an error as well."),
    ],
    help="Run pipelines; nodes whose inputs, parameters and code are unchanged are skipped.",
)
cli.add_command(run)


_env_option = click.option("--env", "-e", default=None, help="The environment (conf/<env>).")
_conf_source_option = click.option(
    "--conf-source",
    callback=validate_conf_source,
    help="Folder, archive or URL of the configuration; conf/ of the project by default.",
)


@click.group()
@click.version_option(package_name="weathermill")
def main() -> None:
    """Weathermill: from gridded atmospheric data to a trained, verified forecast network.

    Pipelines are run with `kedro run`; the commands here are for all else.
    """


@main.command()
@_env_option
@_conf_source_option
@click.option("--pipelines", "-p", default="", help="Pipelines, with commas between; all by default.")
@click.option(
    "--run",
    "run_id",
    default=None,
    help="Only what this MLflow run made: its id, the beginning of it, its name, or `newest`.",
)
@_plainly
def status(env: str | None, conf_source: str | None, pipelines: str, run_id: str | None) -> None:
    """Show every output of the pipelines: its state, fingerprint, size, age and MLflow run."""
    from weathermill.incremental.status import status_table

    with open_session(env, conf_source) as session:
        context = session.load_context()
        made_by = _run_id(run_id, context) if run_id else None
        click.echo(status_table(context, [name for name in pipelines.split(",") if name], made_by=made_by))


def _run_id(reference: str, context: KedroContext) -> str:
    from weathermill.tracking.environment import current_settings
    from weathermill.tracking.run_ids import find_run, open_store

    open_store(current_settings(dict(context.config_loader["mlflow"])), context.project_path)
    return find_run(reference).info.run_id


@main.command()
@_env_option
@_conf_source_option
@click.option("--pipelines", "-p", default="", help="Pipelines, with commas between; all by default.")
@click.option("--quick", is_flag=True, help="Compare names and sizes only, and read no contents.")
@_plainly
def verify(env: str | None, conf_source: str | None, pipelines: str, quick: bool) -> None:
    """Check that every output on disk is what was written, byte by byte."""
    from weathermill.errors import DamagedStoreError
    from weathermill.incremental.verify import verify_outputs

    with open_session(env, conf_source) as session:
        names = [name for name in pipelines.split(",") if name]
        findings = verify_outputs(session.load_context(), names, checksums=not quick)
    for finding in findings:
        click.echo(f"{finding.state:<8} {finding.name:<22} {finding.detail}")
    if damaged := [finding for finding in findings if finding.state == "damaged"]:
        raise DamagedStoreError(
            f"{len(damaged)} of {len(findings)} outputs are damaged: {', '.join(f.name for f in damaged)}",
            where=", ".join(str(finding.path) for finding in damaged),
            remedy=_remake(damaged),
        )


def _remake(damaged: list[Finding]) -> str | None:
    nodes = sorted({finding.node for finding in damaged if finding.node})
    if not nodes:
        return None
    return f'`kedro run --params "force={" ".join(nodes)}"` makes them again, and what is made of them.'


@main.command()
@click.argument("run_id")
@click.option("--run", "execute", is_flag=True, help="Make it again, as a new run, and compare the metrics.")
@_env_option
@_conf_source_option
@_plainly
def reproduce(run_id: str, execute: bool, env: str | None, conf_source: str | None) -> None:
    """Tell the command and configuration that made an MLflow run; refuse where its sources or code have changed.

    The run is given by its MLflow id, the beginning of it, its name, or as `newest`.
    """
    from weathermill.tracking.environment import current_settings
    from weathermill.tracking.making_again import make_again, require_reproducible
    from weathermill.tracking.reproduction import look_up

    with open_session(env, conf_source) as session:
        context = session.load_context()
        project, settings = context.project_path, current_settings(dict(context.config_loader["mlflow"]))
    found = look_up(run_id, settings, project)
    click.echo(found.text())
    found.require_unchanged()
    require_reproducible(found)
    if not execute:
        click.echo("Sources and code are unchanged: `--run` makes it again.")
        return
    comparison = make_again(found, project, settings)
    click.echo(comparison.text())
    if not comparison.equal:
        click.echo(f"The new outputs are in {os.path.relpath(comparison.folder)}")
        sys.exit(1)


@main.command()
@_env_option
@_conf_source_option
@click.option("--retry-refused", is_flag=True, help="Try what MLflow has refused for good once more.")
@_plainly
def sync(env: str | None, conf_source: str | None, retry_refused: bool) -> None:
    """Tell MLflow what it did not take, and which runs were killed; exit with 1 where something is left."""
    from weathermill.tracking.delivery import synchronise
    from weathermill.tracking.environment import current_settings

    with open_session(env, conf_source) as session:
        context = session.load_context()
        project, settings = context.project_path, current_settings(dict(context.config_loader["mlflow"]))
    delivery = synchronise(settings, project, retry_refused=retry_refused)
    click.echo(f"{len(delivery.complete)} runs are complete now; {len(delivery.left)} still wait")
    if delivery.killed:
        click.echo(f"{len(delivery.killed)} runs of processes that are gone are marked KILLED")
    for left in delivery.left:
        for line in left.lines():
            click.echo(line)
    if delivery.fault:
        click.secho(delivery.fault, fg="red", err=True)
    if not delivery.all_told:
        sys.exit(1)


@main.command()
@click.option("--grid", required=True, help="Latitudes x longitudes, such as 721x1440.")
@click.option("--channels", type=int, required=True, help="Prognostic channels.")
@click.option("--batch", type=int, default=4, show_default=True, help="Windows in a batch.")
@click.option("--rollout", type=int, default=1, show_default=True, help="Forecast steps of a window.")
@click.option("--base-channels", type=int, default=64, show_default=True, help="Channels of the first level.")
@click.option("--depth", type=int, default=3, show_default=True, help="Pooling levels.")
@click.option(
    "--precision", type=click.Choice(["fp32", "tf32", "bf16", "fp16"]), default="bf16", show_default=True
)
@click.option("--checkpointing/--no-checkpointing", default=False, help="Recompute each block's activations.")
@click.option("--ema/--no-ema", default=False, help="Keep averaged weights.")
@click.option(
    "--zonal-filter/--no-zonal-filter", default=False, help="Filter all channels: model.zonal_filter."
)
@click.option(
    "--spectral/--no-spectral", default=False, help="With the spectral term: train.spectral_weight."
)
@click.option(
    "--device-memory", type=float, default=None, help="GiB there are; then also the largest batch that fits."
)
@_plainly
def memory(
    grid: str,
    channels: int,
    batch: int,
    rollout: int,
    base_channels: int,
    depth: int,
    precision: str,
    checkpointing: bool,
    ema: bool,
    zonal_filter: bool,
    spectral: bool,
    device_memory: float | None,
) -> None:
    """Predict the device memory that training takes, by part; no GPU is needed."""
    import numpy as np

    from weathermill.models.registry import ModelConfig
    from weathermill.training.ledger import advise, blank_forecaster, predict_for
    from weathermill.training.losses import AreaWeightedLoss
    from weathermill.training.spectral import SpectralTerm
    from weathermill.training.step import StepConfig

    try:
        rows, columns = (int(part) for part in grid.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"{grid!r} is no grid such as 721x1440", param_hint="--grid") from None
    model = ModelConfig(base_channels=base_channels, depth=depth, zonal_filter=8 if zonal_filter else None)
    forecaster = blank_forecaster(model, channels, (rows, columns))
    areas = np.ones(rows)
    term = SpectralTerm(1.0, areas, forecaster.longitude) if spectral else None
    loss = AreaWeightedLoss("mse", areas, spectral=term)
    step = StepConfig(precision=precision, checkpointing=checkpointing, ema_decay=0.999 if ema else None)
    click.echo(predict_for(forecaster, batch, step, rollout, loss=loss).table())
    if device_memory is not None:
        budget = int(device_memory * 2**30)
        click.echo(advise(forecaster, batch, budget, step, rollout, loss=loss).text)


@main.command()
@click.argument("run_a")
@click.argument("run_b")
@_env_option
@_conf_source_option
@click.option(
    "--source", default="forecast", show_default=True, help="Which source of the scores to compare."
)
@click.option("--region", default=None, help="Region of the printed summary; all cells by default.")
@click.option(
    "--level", default=0.95, show_default=True, type=click.FloatRange(0.5, 0.999), help="Of intervals."
)
@click.option(
    "--resamples", default=2000, show_default=True, type=click.IntRange(100), help="Of the bootstrap."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False),
    default=None,
    help="Folder for scorecards, page and table; data/08_reporting/comparisons/<A>..<B> by default.",
)
@click.option("--log", is_flag=True, help="Also add them to the artefacts of RUN_B.")
@_plainly
def compare(
    run_a: str,
    run_b: str,
    env: str | None,
    conf_source: str | None,
    source: str,
    region: str | None,
    level: float,
    resamples: int,
    output: str | None,
    log: bool,
) -> None:
    """Say what changed from RUN_A to RUN_B, and whether it is significant: scores paired by initial time.

    Runs are given by their MLflow id, the beginning of it, their name, or as `newest`. The same as a stage of the catalog:
    kedro run --pipelines=compare --params "compare.runs=RUN_A..RUN_B".
    """
    from weathermill.errors import VerificationError
    from weathermill.tracking.comparison import compare_runs
    from weathermill.tracking.environment import current_settings
    from weathermill.tracking.run_ids import open_store
    from weathermill.verification.summary import comparison_summary

    with open_session(env, conf_source) as session:
        context = session.load_context()
        project, configuration = context.project_path, context.config_loader
    open_store(current_settings(dict(configuration["mlflow"])), project)
    comparison = compare_runs(
        run_a,
        run_b,
        source=source,
        level=level,
        n_resamples=resamples,
        seed=configuration["parameters"]["seed"],
    )
    regions = comparison.dataset["region"].values.tolist()
    if region is not None and region not in regions:
        raise VerificationError(
            f"there is no region {region!r}; there are {', '.join(regions)}",
            where="--region",
            remedy="Choose one of these with --region.",
        )
    click.echo(comparison_summary(comparison.dataset, names=comparison.names, region=region))
    for note in comparison.notes:
        click.echo(note)
    after, before = comparison.names
    folder = (
        Path(output) if output else Path(project, "data", "08_reporting", "comparisons", f"{before}..{after}")
    )
    comparison.write(folder)
    click.echo(f"Page: {os.path.relpath(folder / 'comparison.html')}")
    if log:
        click.echo(f"Logged to run {after}: {comparison.log()}")


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    """Split ``name=value`` texts; what a value says may hold further equal signs."""
    wrong = [text for text in given if not all(part.strip() for part in text.partition("="))]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not of the form name=value", param_hint=option)
    return {name.strip(): value.strip() for name, _, value in (text.partition("=") for text in given)}


def _base_parameters() -> dict[str, Any]:
    """Parameters of conf/base of the project that the current folder belongs to; none outside of one."""
    from kedro.utils import find_kedro_project

    project = find_kedro_project(Path.cwd())
    if project is None:
        return {}
    from weathermill.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    return dict(CONFIG_LOADER_CLASS(str(Path(project, "conf")), "base", **CONFIG_LOADER_ARGS)["parameters"])


@main.command()
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--sample", type=click.IntRange(0), default=6, show_default=True, help="Time steps to read; 0 reads none."
)
@click.option("--html", type=click.Path(dir_okay=False), default=None, help="Also write a page to this file.")
@click.option(
    "--names", multiple=True, metavar="IN_FILE=NAME", help="Canonical name of a variable; repeatable."
)
@click.option("--select", multiple=True, metavar="DIMENSION=VALUE", help="Lead time or member; repeatable.")
@click.option(
    "--units", multiple=True, metavar="NAME=UNITS", help="Units where a file lacks them; repeatable."
)
@_plainly
def inspect(
    sources: tuple[str, ...],
    sample: int,
    html: str | None,
    names: tuple[str, ...],
    select: tuple[str, ...],
    units: tuple[str, ...],
) -> None:
    """Say what SOURCES (files, globs, stores, URLs) hold, what is wrong, and the parameters that ingest them.

    Exits with 1 where something would stop a run with these parameters: they are tried as `kedro run` would, short of the
    work. Within a project its conf/base counts for all other parameters.
    """
    from weathermill.fields.choices import SourceOptions
    from weathermill.fields.inspection import InspectionReport
    from weathermill.fields.looking import look_at
    from weathermill.pipelines.proposal import check_proposal

    options = SourceOptions(_pairs("--names", names), _pairs("--select", select), _pairs("--units", units))
    check = functools.partial(check_proposal, base=_base_parameters())
    look = look_at(list(sources), sample_steps=sample, options=options, check=check)
    click.echo(look.to_text())
    if html:
        report = look.report or InspectionReport()
        report.findings = look.findings
        Path(html).write_text(report.to_html(), encoding="utf-8")
        click.echo(f"Page: {html}")
    if look.errors:
        sys.exit(1)
