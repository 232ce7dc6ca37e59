"""The `weathermill` command."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from weathermill.cli import main


def run(*words):
    return CliRunner().invoke(main, list(words))


def total(output):
    return float(re.search(r"^total\s+([\d,.]+) MiB", output, re.MULTILINE).group(1).replace(",", ""))


def test_memory_is_predicted_by_part_without_a_gpu():
    arguments = ("memory", "--grid", "31x60", "--channels", "9", "--base-channels", "16", "--depth", "2")
    result = run(*arguments, "--batch", "8")
    assert result.exit_code == 0, result.output
    for part in ("parameters", "optimiser", "activations", "workspace", "fragmentation"):
        assert part in result.output
    assert total(run(*arguments, "--batch", "32").output) > total(result.output)
    recomputed = run(*arguments, "--batch", "32", "--checkpointing")
    assert total(recomputed.output) < total(run(*arguments, "--batch", "32").output)


@pytest.mark.parametrize(("gib", "words"), [(80, "largest that fits is"), (0.01, "What would fit")])
def test_memory_says_what_fits(gib, words):
    result = run(
        "memory", "--grid", "31x60", "--channels", "9", "--base-channels", "8", "--device-memory", str(gib)
    )
    assert result.exit_code == 0, result.output
    assert words in result.output


def test_a_malformed_grid_is_told():
    result = run("memory", "--grid", "721", "--channels", "9")
    assert result.exit_code == 2
    assert "721x1440" in result.output
