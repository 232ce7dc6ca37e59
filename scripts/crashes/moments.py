"""When to strike: at a moment drawn uniformly within a stage, as an undisturbed run was timed."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass

from crashes.project import Run

#: What comes before the first node: configuration, locks, the plan, the run in MLflow; and after the last.
BEGIN, CLOSE = "begin", "close"
STAGES = ("ingest", "regrid", "normalise", "tensors", "train", "evaluate", "forecast")
_PLANNED = r"incremental.runner: \S+: to run"
_COMPLETED = re.compile(r"Completed node: (\S+)")


def stages_of_nodes() -> dict[str, str]:
    """The stage that each node belongs to."""
    from weathermill.pipeline_registry import register_pipelines

    pipelines = register_pipelines()
    return {node.name: stage for stage in STAGES for node in pipelines[stage].nodes}


@dataclass(frozen=True)
class Piece:
    """What a run does between two lines of its log.

    Parameters
    ----------
    stage
        The stage.
    node
        The node.
    after
        Pattern of the line that it begins with; empty for the start of the process.
    seconds
        How long it took.
    """

    stage: str
    node: str
    after: str
    seconds: float


@dataclass(frozen=True)
class Moment:
    """So many seconds into a piece."""

    piece: Piece
    seconds: float

    def wait(self, run: Run) -> bool:
        """Wait for it; say whether the run is still at work then."""
        if self.piece.after and not run.wait_for(self.piece.after):
            return False
        time.sleep(self.seconds)
        return not run.ended()

    def text(self, node: str) -> str:
        """Say when it was, and what the run was at."""
        if node == self.piece.node:
            return f"{self.seconds:.2f} s into {node}"
        return f"{self.seconds:.2f} s from {self.piece.node} on, at {node}"


class Timeline:
    """How long an undisturbed run took for what.

    Parameters
    ----------
    run
        A run that has just been started; it is followed to its end.
    """

    def __init__(self, run: Run) -> None:
        stage_of = stages_of_nodes()
        marks: list[tuple[str, float]] = []
        planned = 0.0
        while True:
            over = run.ended()
            now = time.monotonic()
            lines = run.lines()
            if not planned and any(re.search(_PLANNED, line) for line in lines):
                planned = now
            done = [found[1] for line in lines if (found := _COMPLETED.search(line))]
            marks += [(node, now) for node in done[len(marks) :]]
            if over:
                break
            time.sleep(0.002)
        self.status = run.wait()
        self.seconds = now - run.began
        if self.status != 0:
            raise SystemExit(f"the undisturbed run failed; see {run.log}")
        self.order = [node for node, _ in marks]
        self.pieces = [Piece(BEGIN, BEGIN, "", planned - run.began)]
        last, after = planned, _PLANNED
        for node, at in marks:
            self.pieces.append(Piece(stage_of[node], node, after, at - last))
            last, after = at, rf"Completed node: {node}$"
        self.pieces.append(Piece(CLOSE, CLOSE, after, now - last))

    def length(self, stage: str) -> float:
        """Seconds of a stage, of all its nodes together."""
        return sum(piece.seconds for piece in self.pieces if piece.stage == stage)

    def draw(self, stage: str, chance: random.Random) -> Moment:
        """Draw a moment uniformly from the time that a stage takes."""
        left = chance.random() * self.length(stage)
        pieces = [piece for piece in self.pieces if piece.stage == stage]
        for piece in pieces[:-1]:
            if left < piece.seconds:
                return Moment(piece, left)
            left -= piece.seconds
        return Moment(pieces[-1], min(left, pieces[-1].seconds))

    def start_of(self, stage: str) -> Moment:
        """The first moment of a stage."""
        return Moment(next(piece for piece in self.pieces if piece.stage == stage), 0.0)

    def struck(self, lines: list[str]) -> Piece:
        """Say, by what a run has logged, what it was at when it was struck."""
        if not any(re.search(_PLANNED, line) for line in lines):
            return self.pieces[0]
        done = sum(bool(_COMPLETED.search(line)) for line in lines)
        return self.pieces[1 + done]
