"""Benchmarks of the engine against transformers' own path on the same weights, and against the machine's limits."""
