"""The manager of the ESMPy interface: there is one process and no log file, so it does little."""

from __future__ import annotations

from weathermill.esmf.constants import LogKind


class Manager:
    """Stands for the ESMF virtual machine.

    Parameters
    ----------
    logkind : LogKind, optional
        Kept, not used: what there is to log goes to the logger ``weathermill.esmf``.
    debug : bool, optional
        Kept, not used.
    """

    def __init__(self, logkind=LogKind.NONE, debug=False, endFlag=None):
        self.logkind = logkind
        self.debug = debug
        self.local_pet = 0
        self.pet_count = 1

    def barrier(self):
        """Do nothing: there is one process."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def local_pet() -> int:
    """Return 0, the number of the only process."""
    return 0


def pet_count() -> int:
    """Return 1, the count of processes."""
    return 1
