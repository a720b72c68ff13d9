"""`python -m illume_loop`, which is `illume-loop`."""

from illume_loop.cli.main import main

if __name__ == "__main__":
    main()
