"""The command line, one file per noun. No module imports torch before a command needs it."""
