"""Run xESMF's own test suite against the ESMPy that `import esmpy` finds, and count.

The tests come with the xesmf wheel; where they do not, they are taken from the source distribution of the
installed version (which needs a package index). One line of them is mended: `xr.Dataset(dataset)`, which current
xarray refuses with the advice to write `dataset.copy()`; unmended, it keeps all of test_frontend.py from being
collected. Nothing is left out.

    python scripts/run_xesmf_suite.py [arguments of pytest]
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

BROKEN = "xr.Dataset(ds_in[['data']])"
MENDED = "ds_in[['data']].copy()"


def find_tests(folder: Path) -> Path:
    """Copy xESMF's tests into a folder; where they are then."""
    target = folder / "xesmf_suite"
    installed = Path(importlib.util.find_spec("xesmf").origin).parent / "tests"
    if installed.is_dir():
        shutil.copytree(installed, target, ignore=shutil.ignore_patterns("__pycache__"))
        return target
    version = importlib.metadata.version("xesmf")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), f"xesmf=={version}"], check=True)
    with tarfile.open(next(folder.glob("xesmf-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(next(folder.glob("xesmf-*/xesmf/tests")), target)
    return target


def mend(tests: Path) -> bool:
    """Mend the one line that current xarray refuses; whether it was there."""
    file = tests / "test_frontend.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(BROKEN, MENDED), encoding="utf-8")
    return BROKEN in text


def main(arguments: list[str]) -> int:
    """Run the suite; pytest's exit status."""
    from weathermill import esmf

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tests = find_tests(folder)
        mended = mend(tests)
        print(f"xESMF {importlib.metadata.version('xesmf')} on {esmf.provider_name()}")
        if mended:
            print(f"mended in test_frontend.py, for current xarray: {BROKEN} -> {MENDED}")
        sys.stdout.flush()
        # Workers that the tests start must find the same provider, wherever this checkout is not installed.
        sources = str(Path(esmf.__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [sources, os.environ.get("PYTHONPATH")]))
        start = "import sys, weathermill, pytest; sys.exit(pytest.main(sys.argv[1:]))"
        options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(tests), *arguments]
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run([sys.executable, "-c", start, *options], cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
