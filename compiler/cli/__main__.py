"""``python -m columba.cli``."""

from columba.cli.main import main

main(prog_name="columba")
