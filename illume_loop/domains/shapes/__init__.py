"""The `shapes` world: a grammar, a Pillow renderer and an exact checker (see domain.py for the front door)."""
