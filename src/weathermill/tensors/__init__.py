"""The training store: channels, splits, and bytes on disk that a GPU can be fed from.

Imports torch, NumPy and safetensors alone, so that it works on a bare GPU machine.
"""
