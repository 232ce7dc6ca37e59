"""Everything is in pyproject.toml; this adds the one file that setuptools has no setting for.

`weathermill_esmpy.pth` puts the directory of the stand-in for ESMPy at the end of the module search path, so
that xESMF works in processes that never import weathermill: see `weathermill.esmf.provider`.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PTH = "weathermill_esmpy.pth"
FALLBACK = "weathermill/esmf/fallback"


class BuildWithPth(build_py):
    """Put the path file beside the package."""

    def run(self):
        """Build, then write the path file: into the wheel's root, which becomes site-packages."""
        super().run()
        if self.editable_mode:
            # An editable wheel holds links only; what lies where it is put together is shipped as well.
            root = self.distribution.get_command_obj("install").install_lib
            line = str(Path(__file__).resolve().parent / "src" / FALLBACK)
        else:
            root, line = self.build_lib, FALLBACK
        Path(root, PTH).write_text(line + "\n", encoding="utf-8")


setup(cmdclass={"build_py": BuildWithPth})
