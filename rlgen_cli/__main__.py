"""`python -m rlgen_cli`: the same as the console script."""

from rlgen_cli.cli.main import main

main()
