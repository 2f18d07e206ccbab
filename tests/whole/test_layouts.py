"""The package where its folders do not lie in one, as ``pip install --editable`` leaves those of a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import importlib.util, os, sys, warnings

class Finder:
    folders = {"columba": "compiler", **{f"columba.{name}": name for name in ("codegen", "ir", "runtime")}}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        folder = cls.folders.get(name)
        if folder is None:
            return None
        folder = os.path.abspath(folder)
        return importlib.util.spec_from_file_location(
            name, f"{folder}/__init__.py", submodule_search_locations=[folder]
        )

sys.path[:] = [place for place in sys.path if "__editable__" not in place]
sys.meta_path.insert(0, Finder)
import torch, columba
from columba.runtime import fingerprint, warn

assert columba.__path__ == [os.path.abspath("compiler")], columba.__path__
sources = {os.path.relpath(file) for file in fingerprint.source_files()}
missing = {"compiler/driver.py", "compiler/passes/pipeline.py", "ir/spaces.py", "codegen/cpp/gemm.h"} - sources
assert not missing, missing
assert fingerprint.fingerprint()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    warn.warn_once("something")
assert told[0].filename == "<string>", told[0].filename
"""


def test_a_checkout_that_is_installed_as_it_stands() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
