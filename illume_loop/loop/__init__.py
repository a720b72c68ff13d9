"""The loop of a run: the states and stages of its rounds, and the coordinator that takes their steps."""
