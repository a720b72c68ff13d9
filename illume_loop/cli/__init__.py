"""The command line: thin, one file per noun. Nothing here imports torch before a command needs it."""
