"""`python -m attrsens`."""

from attrsens.cli import main

if __name__ == "__main__":
    main()
