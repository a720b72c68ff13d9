"""The `text` world: prompts that people bring, without an exact checker (domain.py offers them as a Domain)."""
