"""Figures for the report, the dashboard, the studies and the command line."""
