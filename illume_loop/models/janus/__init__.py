"""The `janus` backend, for Janus and Janus-Pro checkpoints in the layout of transformers' own classes."""
