"""Controlled experiments. A study is a grid of arms and seeds; each cell is a real run, and all are measured alike."""
