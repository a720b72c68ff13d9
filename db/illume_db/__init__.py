"""The store of record: typed tables, sessions, reads and writes. Imports nothing of illume_loop."""
