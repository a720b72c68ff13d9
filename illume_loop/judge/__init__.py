"""The judge: what reads images, asks questions, writes critiques, and how far it can be trusted."""
