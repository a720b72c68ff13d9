"""Drawn figures, each once: used by the report, the dashboard, the studies and the command line."""
