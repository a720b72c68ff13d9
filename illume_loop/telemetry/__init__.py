"""How a run looks from outside: metrics for Prometheus, logs as JSON, traces for OpenTelemetry (all off by default)."""
