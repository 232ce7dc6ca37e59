"""Runs that know what is already done: fingerprints of outputs, and a runner that skips what stands."""
