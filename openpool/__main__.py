"""`python -m openpool` is the `openpool` command."""

from openpool.cli import main

main()
