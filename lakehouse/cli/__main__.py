"""`python -m lakehouse.cli`."""

from lakehouse.cli import main

if __name__ == "__main__":
    main()
