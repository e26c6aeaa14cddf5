"""``python -m buckia``: the same as the command."""

from buckia.cli import main

if __name__ == "__main__":
    main()
