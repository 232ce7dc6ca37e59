"""From gridded atmospheric data to a trained, verified forecast network."""

__version__ = "0.1.0"
