"""The `shapes` world: a grammar, a Pillow renderer and an exact checker (domain.py offers them as a Domain)."""
