"""Observers of a run: metrics for Prometheus, logs as JSON, traces for OpenTelemetry. All are off by default."""
