"""Measuring the engine against transformers' own path on the same weights, and against what the machine can do."""
