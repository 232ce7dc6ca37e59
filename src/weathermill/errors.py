"""Every error that Weathermill raises on purpose: a code, what it means and what to do.

An error's message says *what* is wrong and *where*; its ``remedy`` says what to do. The class docstring is its
meaning, as the documentation prints it. Library code raises these; nothing here imports anything else of ours, but for
what keeps credentials out of messages.
"""

from __future__ import annotations

from weathermill.redaction import redact


class WeathermillError(Exception):
    """Something that Weathermill refuses to go on with.

    Parameters
    ----------
    what
        One sentence: what is wrong, with the value that was found and the values that would do.
    where
        The file, store, variable or parameter concerned.
    remedy
        What to do about it; the class's own ``default_remedy`` when not given.
    """

    code = "WM000"
    default_remedy = ""

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy or self.default_remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        where = f" [{self.where}]" if self.where else ""
        remedy = f"\n  -> {self.remedy}" if self.remedy else ""
        return redact(f"{self.code} {self.what}{where}{remedy}")


class ParameterError(WeathermillError):
    """A parameter is unknown, missing, of the wrong type or outside its range."""

    code = "WM100"
    default_remedy = "Correct the parameter in conf/<env>/parameters_*.yml or on the command line."


class ConfigurationError(WeathermillError):
    """An environment, pipeline, node or catalog entry does not exist, or a file of the configuration is malformed."""

    code = "WM101"
    default_remedy = "Correct the command, or the file in conf/ that the message names."


class SourceNotFoundError(WeathermillError):
    """A source path, glob or URL matches nothing that can be read."""

    code = "WM200"
    default_remedy = "Correct the path: in the catalog, it is the `filepath` of `raw_fields`."


class UnreadableSourceError(WeathermillError):
    """A source file is truncated, damaged or of a format that is not supported."""

    code = "WM201"
    default_remedy = "Download or copy the file again."


class MissingVariableError(WeathermillError):
    """A variable that was asked for is in none of the sources."""

    code = "WM202"
    default_remedy = (
        "Choose among the variables offered, add the file that holds it, or say by ingest.names which of "
        "them it is."
    )


class MissingLevelError(WeathermillError):
    """A pressure level that was asked for is in none of the sources."""

    code = "WM203"
    default_remedy = "Choose among the levels offered, or add the file that holds it."


class UnitsError(WeathermillError):
    """Units are missing, or cannot be converted to the canonical ones."""

    code = "WM204"
    default_remedy = "Correct the `units` attribute of the variable in the source."


class CoordinateError(WeathermillError):
    """A coordinate (time, level, latitude, longitude) is missing, ambiguous or malformed."""

    code = "WM205"
    default_remedy = (
        "Look at what the source holds with `weathermill inspect <source>`, and correct its coordinates "
        "there."
    )


class EmptySelectionError(WeathermillError):
    """A selection in time, level or space leaves nothing."""

    code = "WM206"
    default_remedy = "Widen the selection to overlap what the sources hold."


class MissingDataError(WeathermillError):
    """There are missing values (NaN) where none are allowed."""

    code = "WM207"
    default_remedy = (
        "Fill the gaps (`ingest.fill`), choose another period, or name the variable in "
        "`ingest.allow_missing`."
    )


class TimeAxisError(WeathermillError):
    """Times are inconsistent: conflicting duplicates, mixed calendars or an irregular step."""

    code = "WM208"
    default_remedy = "Give times of one calendar that increase evenly, or choose a period without the fault."


class ImplausibleValueError(WeathermillError):
    """Values are infinite, or stand for missing ones unsaid, or lie beyond what the variable can have."""

    code = "WM209"
    default_remedy = (
        "Check the units of the source, declare its fill value (attribute _FillValue), or give the limits "
        "of the variable: `ingest.limits`."
    )


class SourceConflictError(WeathermillError):
    """Sources contradict each other, or themselves: one field at one time, level and place has different values."""

    code = "WM210"
    default_remedy = "Leave one of the sources out, or say by ingest.names which of the variables is meant."


class GridError(WeathermillError):
    """A grid is unknown, malformed or does not fit the operation."""

    code = "WM300"
    default_remedy = (
        "Choose a grid that docs/regridding.md names, or correct the coordinates of the one given."
    )


class RegridWeightsError(WeathermillError):
    """Regridding weights are damaged or belong to another pair of grids, mask or method."""

    code = "WM301"
    default_remedy = "Delete the weights file; the next run makes it anew."


class ConstantChannelError(WeathermillError):
    """A channel does not vary in the training period, so that it cannot be normalised."""

    code = "WM400"
    default_remedy = "Leave the channel out, or widen the training period."


class SplitError(WeathermillError):
    """A train, validation or test period is empty, overlaps another or is too short."""

    code = "WM401"
    default_remedy = "Correct the `splits`: periods in order that lie within the data and do not overlap."


class StoreError(WeathermillError):
    """A store on disk is missing, incomplete, damaged or of another layout."""

    code = "WM500"
    default_remedy = "Run the node that makes it again, with `--params force=<node>`."


class UnwritableOutputError(WeathermillError):
    """An output cannot be written: permission, a missing folder or a full disk."""

    code = "WM501"
    default_remedy = "Make the folder writable, free disk space, or change the filepath in the catalog."


class StoreLockedError(WeathermillError):
    """A store is being read or written by another run."""

    code = "WM502"
    default_remedy = "Wait until that run has ended, or let this one wait: `--params locking.busy=wait`."


class DamagedStoreError(StoreError):
    """A store on disk is not what was written: a file is missing, truncated, changed or another one."""

    code = "WM503"
    default_remedy = "Run the node that makes it again, with `--params force=<node>`."


class CheckpointError(WeathermillError):
    """A checkpoint is missing, damaged or does not fit the configuration that should resume from it."""

    code = "WM600"
    default_remedy = "Train anew with `train.resume=false`, or bring back a copy of the checkpoints."


class ModelError(WeathermillError):
    """A network cannot be built or applied: unknown architecture, wrong channels or grid."""

    code = "WM601"
    default_remedy = (
        "Correct the `model` parameters, or give the channels and grid that the network was trained on."
    )


class NonFiniteError(WeathermillError):
    """A loss or gradient became NaN or infinite."""

    code = "WM602"
    default_remedy = "Lower the learning rate, clip gradients, or look at the samples named here."


class TrainingInterruptedError(WeathermillError):
    """A training was asked to stop (SIGTERM, SIGINT, SIGHUP or by its caller) and did so after saving its state."""

    code = "WM603"
    default_remedy = "Go on from the checkpoint with `train.resume=true`."


class ResourceError(WeathermillError):
    """Memory, disk or device memory does not suffice for what was asked."""

    code = "WM700"
    default_remedy = "Free what is short, or ask for less: a smaller batch, fewer variables, a coarser grid."


class ReproductionError(WeathermillError):
    """A run cannot be reproduced: its record is incomplete, or its sources or code have changed."""

    code = "WM900"
    default_remedy = "Bring back the sources and the commit that the message names."


class TrackingError(WeathermillError):
    """MLflow's address, database, experiment or run is not one that can be recorded to, or a run is unknown."""

    code = "WM901"
    default_remedy = "Correct `tracking_uri` or `experiment` in conf/<env>/mlflow.yml; `enabled: false` there records nothing."


class VerificationError(WeathermillError):
    """Forecasts cannot be scored, or scores not compared: shapes, channels, lead or initial times do not fit."""

    code = "WM800"
    default_remedy = "Give forecasts and truth of the same channels, grid, initial and lead times."
