"""Exports of a run's data (samples, assessments, training rows) and models in common formats."""
