"""`import esmpy` finds the provider when, and only when, no real ESMPy is there, in every kind of process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from weathermill import esmf
from weathermill.esmf.provider import FALLBACK

SOURCES = Path(esmf.__file__).resolve().parents[2]


def _run(code, *, path=(), cwd=None, script=None):
    """Run code in a fresh interpreter; what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(SOURCES)])}
    if script is not None:
        script.write_text(textwrap.dedent(code), encoding="utf-8")
    arguments = ["-c", textwrap.dedent(code)] if script is None else [str(script)]
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def _fake(folder, name="esmpy"):
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "8.9.0"\nreal = True\n', encoding="utf-8")
    return folder


def test_importing_weathermill_is_enough(tmp_path):
    said = _run("import weathermill, esmpy; print(esmpy.__version__, esmpy.__provider__)", cwd=tmp_path)
    assert said.startswith("8.9.0+weathermill.")
    assert esmf.PROVIDER in said


def test_importing_loads_no_compiler(tmp_path):
    said = _run(
        """
        import sys
        import weathermill.esmf, esmpy
        print("numba" in sys.modules, "scipy" in sys.modules)
        """,
        cwd=tmp_path,
    )
    assert said == "False False"


def test_the_version_passes_comparisons_and_names_its_maker():
    import esmpy
    from packaging.version import Version

    assert Version(esmpy.__version__) >= Version("8.4")
    assert "weathermill" in esmpy.__version__
    assert esmf.provider_name() == esmf.PROVIDER


@pytest.mark.parametrize("first", [True, False])
def test_a_real_esmpy_wins_wherever_it_is(tmp_path, first):
    place = "insert(0, " if first else "append("
    said = _run(
        f"""
        import sys
        import weathermill
        sys.path.{place}{str(_fake(tmp_path / "site"))!r})
        import esmpy
        from weathermill import esmf
        print(esmpy.real, esmpy.__version__, esmpy.__file__, "|", esmf.provider_name())
        """,
        cwd=tmp_path,
    )
    assert said.startswith("True 8.9.0 ")
    assert str(tmp_path / "site") in said
    assert said.endswith("| ESMPy 8.9.0")


def test_a_real_esmpy_of_an_editable_install_wins(tmp_path):
    said = _run(
        f"""
        import importlib.util, sys
        import weathermill

        class Finder:
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                if name == "esmpy":
                    return importlib.util.spec_from_file_location(
                        name, {str(_fake(tmp_path / "site") / "esmpy" / "__init__.py")!r}
                    )

        sys.meta_path.append(Finder)
        import esmpy
        print(esmpy.real)
        """,
        cwd=tmp_path,
    )
    assert said == "True"


def test_a_real_esmpy_under_its_old_name_wins(tmp_path):
    said = _run(
        f"""
        import sys
        import weathermill
        sys.path.insert(0, {str(_fake(tmp_path / "site", "ESMF"))!r})
        try:
            import esmpy as ESMF
        except ImportError:
            import ESMF
        print(ESMF.real)
        """,
        cwd=tmp_path,
    )
    assert said == "True"


def test_a_broken_real_esmpy_is_not_covered_up(tmp_path):
    folder = _fake(tmp_path / "site")
    (folder / "esmpy" / "__init__.py").write_text("raise ImportError('no ESMFMKFILE')\n", encoding="utf-8")
    said = _run(
        f"""
        import sys
        import weathermill
        sys.path.append({str(folder)!r})
        try:
            import esmpy
        except ImportError as error:
            print(error)
        """,
        cwd=tmp_path,
    )
    assert said == "no ESMFMKFILE"


def test_a_directory_of_that_name_is_no_esmpy(tmp_path):
    (tmp_path / "esmpy").mkdir()
    (tmp_path / "ESMF").mkdir()
    said = _run("import weathermill, esmpy; print(esmpy.__provider__)", cwd=tmp_path)
    assert said == esmf.PROVIDER


def test_two_copies_do_not_take_each_other_for_the_real_one(tmp_path):
    other = tmp_path / "weathermill" / "esmf" / "fallback"
    shutil.copytree(FALLBACK, other)
    said = _run(
        "import weathermill, esmpy; print(esmpy.__provider__)",
        path=[other],
        cwd=tmp_path,
    )
    assert said == esmf.PROVIDER


def test_installing_twice_adds_one_entry():
    esmf.install()
    esmf.install()
    assert sys.path.count(FALLBACK) == 1


REGRIDDER = """
    import warnings
    warnings.simplefilter("ignore")
    import numpy as np


    def use(regridder):
        import sys
        return float(regridder(np.ones((6, 12))).mean()), "weathermill.esmf.interface" in sys.modules


    def check_import(_):
        import esmpy
        return esmpy.__version__


    def make():
        import weathermill
        import xesmf as xe
        return xe.Regridder(xe.util.grid_global(30, 30), xe.util.grid_global(45, 45), "conservative")
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_children_can_unpickle_a_regridder(tmp_path, method):
    if method != "spawn" and sys.platform == "win32":
        pytest.skip("there is no fork on Windows")
    said = _run(
        textwrap.dedent(REGRIDDER)
        + textwrap.dedent(
            f"""
            if __name__ == "__main__":
                import multiprocessing
                regridder = make()
                with multiprocessing.get_context({method!r}).Pool(1) as pool:
                    print(pool.map(use, [regridder]), pool.map(check_import, [0]))
            """
        ),
        script=tmp_path / "parent.py",
        cwd=tmp_path,
    )
    assert "1.0" in said and "True" in said and "+weathermill" in said


def test_dask_workers_can_unpickle_a_regridder(tmp_path):
    pytest.importorskip("distributed")
    said = _run(
        textwrap.dedent(REGRIDDER)
        + textwrap.dedent(
            """
            if __name__ == "__main__":
                from distributed import Client

                regridder = make()
                with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
                    print(client.submit(use, regridder).result())
            """
        ),
        script=tmp_path / "parent.py",
        cwd=tmp_path,
    )
    assert "1.0" in said and "True" in said


def test_log_line_names_the_provider(caplog):
    import xesmf as xe

    caplog.set_level("INFO", logger="weathermill.esmf")
    xe.Regridder(xe.util.grid_global(30, 30), xe.util.grid_global(45, 45), "bilinear", periodic=True)
    assert esmf.PROVIDER in caplog.text
    assert "bilinear" in caplog.text


def test_an_installed_copy_answers_without_weathermill_being_imported(tmp_path):
    """A wheel, in an environment of its own, where nothing but esmpy is imported."""
    root = SOURCES.parent
    if not (root / "setup.py").is_file():
        pytest.skip("the sources are not there, only an installed copy")
    pytest.importorskip("setuptools", minversion="77", reason="building a wheel offline needs setuptools 77")
    copy = tmp_path / "source"
    shutil.copytree(SOURCES / "weathermill", copy / "src" / "weathermill")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*")) / "site-packages"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "zz_dependencies.pth").write_text(packages + "\n", encoding="utf-8")

    def run(code):
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [str(python), "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
        ).stdout

    assert run("import esmpy; print(esmpy.__provider__)") == esmf.PROVIDER + "\n"
    _fake(site)
    assert run("import esmpy; print(esmpy.real)") == "True\n"


def test_kernels_are_compiled_when_first_used_and_kept(tmp_path):
    code = """
        import weathermill
        import xesmf as xe
        from weathermill.esmf import bilinear, conservative, nearest, patch, polygons, search, weights
        modules = (bilinear, conservative, nearest, patch, polygons, search)
        kernels = [k for m in modules for k in vars(m).values() if hasattr(k, "signatures")]
        assert len(kernels) > 20
        print(sum(len(k.signatures) for k in kernels), end=" ")
        for method in ("bilinear", "conservative", "nearest_s2d", "patch"):
            xe.Regridder(xe.util.grid_global(30, 30), xe.util.grid_global(45, 45), method, periodic=True)
        print(sum(sum(k.stats.cache_misses.values()) for k in kernels))
    """
    _run(code, cwd=tmp_path)
    assert _run(code, cwd=tmp_path) == "0 0"
