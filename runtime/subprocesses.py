"""Other Python processes: modules of this package that are run as programs."""

from __future__ import annotations

import json
import os
import sys

STARTING = """
import sys
sys.path[:] = [path for path in sys.path if path]
import json, runpy
sys.path[:] = json.loads(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as ``python -m`` would, but finds modules where this process does.

    PYTHONPATH, and the working folder under ``-m``, would come before the standard library already while Python starts, so that a
    ``types.py`` beside a user's script would break it.
    """
    return [sys.executable, "-c", STARTING, json.dumps(list(map(os.path.abspath, sys.path))), module, *arguments]
