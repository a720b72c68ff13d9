"""The `text` world: prompts that people bring, with nothing that could check an image exactly (see domain.py)."""
