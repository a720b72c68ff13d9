"""Writes, one subject a file. They flush and never commit: the transaction belongs to the caller."""
