"""The database layer: typed tables, sessions, reads and writes. It imports nothing of illume_loop."""
