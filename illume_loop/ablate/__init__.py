"""Controlled experiments: a study is a grid of arms and seeds of real runs, all measured alike (study.py, grid.py)."""
