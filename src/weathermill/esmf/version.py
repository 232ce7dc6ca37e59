"""What this provider is, and which version of ESMPy's interface it speaks."""

from __future__ import annotations

ESMPY_INTERFACE = "8.9.0"
__version__ = "0.1.0"
