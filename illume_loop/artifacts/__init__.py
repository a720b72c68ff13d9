"""Content-addressed images and checkpoints over fsspec."""
