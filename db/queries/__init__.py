"""Reads, one subject a file. They return plain rows and dictionaries, never objects that are bound to a session."""
