"""``python -m codingbench`` is the ``codingbench`` command."""

from codingbench.cli.main import main

if __name__ == "__main__":
    main()
