"""`python -m glideslope` is the `glideslope` command."""

from .cli import main

if __name__ == "__main__":
    main()
