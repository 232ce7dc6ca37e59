"""From a tensor store to weights: feed, loss, step, checkpoints and the loop that ties them.

Imports torch, NumPy and safetensors alone, so that it works on a bare GPU machine.
"""
