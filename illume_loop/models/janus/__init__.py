"""The `janus` backend: the Janus and Janus-Pro checkpoints in the layout of transformers' own classes."""
