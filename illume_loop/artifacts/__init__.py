"""Content-addressed stores of images and checkpoints, on any file system of fsspec."""
