"""`python -m glideslope` is the `glideslope` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
