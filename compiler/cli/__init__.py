"""The ``columba`` command."""

from columba.cli.main import main

__all__ = ["main"]
