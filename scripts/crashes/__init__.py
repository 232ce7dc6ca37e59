"""The parts of ``scripts/crash_matrix.py``."""
