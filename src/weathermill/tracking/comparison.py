"""Two MLflow runs, compared by the scores that they left."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow
import xarray as xr
from matplotlib.figure import Figure
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from weathermill.errors import ParameterError, VerificationError
from weathermill.tracking.run_ids import find_run, started
from weathermill.verification.comparison_page import comparison_frame, drawable_regions, render_comparison
from weathermill.verification.scorecards import comparison_scorecard
from weathermill.verification.seasons import compare_seasons, seasons_within, with_seasons
from weathermill.verification.significance import compare
from weathermill.verification.style import save_figure
from weathermill.verification.summary import comparison_summary

logger = logging.getLogger(__name__)

SCORES_FILE = "scores.nc"
ARTEFACT_FOLDER = "compare"
_UNTOLD = ("compare.", "force")


@dataclass(frozen=True)
class RunComparison:
    """What came out of a comparison.

    Parameters
    ----------
    dataset
        From ``weathermill.verification.significance.compare``: the change from ``before`` to ``after``; with that by
        season, where there are several.
    before, after
        The runs.
    notes
        What limits the comparison.
    differences
        Parameters that differ: name, value after, value before.
    facts
        On ``after`` and ``before``, for the page.
    """

    dataset: xr.Dataset
    before: Run
    after: Run
    notes: list[str] = field(default_factory=list)
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, str]:
        """How the run judged and the other are called in texts and figures."""
        return _name(self.after), _name(self.before)

    def summary(self) -> str:
        """The comparison in a few lines."""
        return "\n".join([comparison_summary(self.dataset, names=self.names), *self.notes])

    def page(self) -> str:
        """The comparison as HTML."""
        return render_comparison(
            self.dataset,
            names=self.names,
            runs=self.facts,
            differences=self.differences,
            notes=self.notes,
            simulated=bool(self.dataset.attrs.get("simulated")),
        )

    def figures(self) -> dict[str, Figure]:
        """A scorecard for each region, and for each region and season."""
        drawn = {
            f"scorecard_{region}": comparison_scorecard(self.dataset, region=region, names=self.names)
            for region in drawable_regions(self.dataset)
        }
        if (seasons := seasons_within(self.dataset)) is not None:
            for season in seasons["season"].values.tolist():
                for region in drawable_regions(seasons, season):
                    drawn[f"scorecard_{region}_{season}"] = comparison_scorecard(
                        seasons, region=region, season=season, names=self.names
                    )
        return drawn

    def write(self, folder: Path) -> list[Path]:
        """Write the scorecards (PNG), the page (HTML), the table (CSV) and the numbers (NetCDF) to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        written = [save_figure(figure, folder / f"{name}.png") for name, figure in self.figures().items()]
        for name, content in (
            ("comparison.html", self.page()),
            ("summary.txt", self.summary() + "\n"),
            ("comparison.csv", comparison_frame(self.dataset).to_csv(index=False)),
        ):
            partial = folder / f"{name}.partial"
            partial.write_text(content, encoding="utf-8")
            written.append(partial.replace(folder / name))
        partial = folder / "comparison.nc.partial"
        self.dataset.to_netcdf(partial, engine="h5netcdf")
        written.append(partial.replace(folder / "comparison.nc"))
        return written

    def log(self) -> str:
        """Add all of it to the artefacts of ``after``; return the folder there."""
        folder = f"{ARTEFACT_FOLDER}/{_name(self.before)}"
        with tempfile.TemporaryDirectory() as here:
            self.write(Path(here))
            mlflow.MlflowClient().log_artifacts(self.after.info.run_id, here, folder)
        return folder


def parse_runs(runs: Sequence[str] | str | None) -> tuple[str, str]:
    """Take the two runs from a list, or from one text with ".." or blanks between.

    Raises
    ------
    ParameterError
        If there are not two.
    """
    words = re.split(r"\.\.|[\s,]+", runs.strip()) if isinstance(runs, str) else list(runs or [])
    words = [word for word in words if word]
    if len(words) != 2:
        raise ParameterError(
            f"compare.runs names {len(words)} runs, not two",
            remedy='Give two, as in --params "compare.runs=RUN_A..RUN_B".',
        )
    return words[0], words[1]


def load_scores(run: Run) -> xr.Dataset:
    """Fetch the scores that a run left.

    Raises
    ------
    VerificationError
        If it left none, or they cannot be fetched or read.
    """
    client = mlflow.MlflowClient()
    path = _scores_path(run.info.run_id)
    if path is None:
        raise VerificationError(
            f"MLflow run {_name(run)} ({run.info.run_name}) holds no {SCORES_FILE}",
            remedy="Its evaluation was not part of it, was skipped as unchanged (`weathermill status` names the run that"
            " made the scores), or failed. Choose another run, or evaluate with --params force=evaluate.",
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            local = client.download_artifacts(run.info.run_id, path, folder)
            return xr.load_dataset(local, engine="h5netcdf", decode_timedelta=False)
    except (OSError, ValueError, MlflowException) as error:
        raise VerificationError(f"the scores of MLflow run {_name(run)} cannot be read: {error}") from error


def compare_runs(
    before: str,
    after: str,
    *,
    source: str = "forecast",
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> RunComparison:
    """Compare the scores of two MLflow runs: the change from ``before`` to ``after``.

    Parameters
    ----------
    before, after
        Ids of runs, beginnings of ids, names, or ``newest`` for the newest run with scores.
    source
        Which source of the scores; "forecast" is the network.
    level, n_resamples, seed
        As for ``weathermill.verification.significance.compare``.

    Raises
    ------
    TrackingError
        If a run is unknown, or several are called so.
    VerificationError
        If a run has no scores, or the two are of different grids or periods, or the same.
    """
    runs = [find_run(each, suits=_has_scores, meaning="runs with scores") for each in (before, after)]
    if runs[0].info.run_id == runs[1].info.run_id:
        raise VerificationError(f"{before!r} and {after!r} are one and the same run, {_name(runs[0])}")
    scores = [load_scores(run) for run in runs]
    notes = _require_comparable(runs, scores, source)
    how = {
        "source": source,
        "baseline_source": source,
        "level": level,
        "n_resamples": n_resamples,
        "seed": seed,
    }
    dataset = with_seasons(compare(scores[1], scores[0], **how), compare_seasons(scores[1], scores[0], **how))
    for key in ("simulated", "grid"):
        if key in scores[1].attrs:
            dataset.attrs[key] = scores[1].attrs[key]
    dataset.attrs |= {"run": runs[1].info.run_id, "baseline_run": runs[0].info.run_id, "source": source}
    for dim, noun in (("init_time", "initial times"), ("channel", "channels"), ("lead_time", "lead times")):
        sizes = [each.sizes[dim] for each in scores]
        common = dataset.attrs["n_init_times"] if dim == "init_time" else dataset.sizes[dim]
        if common < max(sizes):
            notes.append(
                f"Only {common} {noun} are in both runs, of {sizes[1]} in {_name(runs[1])} and {sizes[0]} in"
                f" {_name(runs[0])}."
            )
    return RunComparison(
        dataset=dataset,
        before=runs[0],
        after=runs[1],
        notes=notes,
        differences=_differences(runs[1], runs[0]),
        facts=[_facts(run, each) for run, each in zip(reversed(runs), reversed(scores), strict=True)],
    )


def _require_comparable(runs: list[Run], scores: list[xr.Dataset], source: str) -> list[str]:
    for run, each in zip(runs, scores, strict=True):
        if source not in each["source"].values:
            raise VerificationError(
                f"the scores of MLflow run {_name(run)} hold no {source!r}, but {', '.join(each['source'].values)}"
            )
    digests = [each.attrs.get("grid_digest") for each in scores]
    if None not in digests and digests[0] != digests[1]:
        raise VerificationError(
            f"the runs were verified on different grids, {scores[0].attrs['grid']} ({_name(runs[0])}) and"
            f" {scores[1].attrs['grid']} ({_name(runs[1])}), on which errors cannot be compared",
            remedy="Evaluate both on one grid (regrid.target).",
        )
    notes = []
    data = [each.attrs.get("tensors") for each in scores]
    if None not in data and data[0] != data[1]:
        notes.append(
            "The runs were verified against different training stores: make sure that their truth is the same."
        )
    means = [each.attrs.get("climatology") for each in scores]
    spans = [(each.attrs.get("climatology_start"), each.attrs.get("climatology_stop")) for each in scores]
    if means[0] != means[1] or spans[0] != spans[1]:
        notes.append("Their climatologies differ, so that anomaly correlations are not comparable.")
    return notes


def _scores_path(run_id: str) -> str | None:
    client = mlflow.MlflowClient()
    waiting = [""]
    while waiting:
        for entry in client.list_artifacts(run_id, waiting.pop() or None):
            if entry.is_dir and PurePosixPath(entry.path).name not in ("figures", ARTEFACT_FOLDER):
                waiting.append(entry.path)
            elif PurePosixPath(entry.path).name == SCORES_FILE:
                return entry.path
    return None


def _has_scores(run: Run) -> bool:
    return any(key.startswith("skill/") for key in run.data.metrics)


def _name(run: Run) -> str:
    return run.info.run_id[:8]


def _facts(run: Run, scores: xr.Dataset) -> dict[str, Any]:
    tags = run.data.tags
    return {
        "run": run.info.run_id,
        "name": run.info.run_name,
        "started": started(run),
        "pipelines": tags.get("pipelines", "-"),
        "environment": tags.get("env", "-"),
        "commit": tags.get("mlflow.source.git.commit", "-")[:12]
        + (" (with changes)" if tags.get("git.dirty") == "true" else ""),
        "grid": scores.attrs.get("grid", "-"),
        "initial_times": scores.sizes["init_time"],
        "climatology": scores.attrs.get("climatology", "-"),
        "training_store": str(scores.attrs.get("tensors", "-"))[:16],
    }


def _differences(after: Run, before: Run) -> list[tuple[str, str, str]]:
    here, there = after.data.params, before.data.params
    return [
        (name, here.get(name, "-"), there.get(name, "-"))
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name) and not name.startswith(_UNTOLD)
    ]
