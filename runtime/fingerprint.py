"""Cache keys: what identifies this version of Columba: what older versions stored is not read."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import columba.ir

FOLDERS = ("ir", "passes", "gradient", "lowering", "selection", "codegen", ".")
"""Of the package: what decides how programs are compiled. Of ``.`` the modules directly in it."""


@functools.cache
def fingerprint() -> str:
    """The hash of the source of the compiler: passes, lowering, code generation."""
    digest = hashlib.sha256()
    for file in source_files():
        with open(file, "rb", buffering=0) as f:
            digest.update(os.path.basename(file).encode() + b"\0" + f.read())
    return digest.hexdigest()


def source_files() -> list[str]:
    """The paths of what the fingerprint covers, sorted."""
    root = Path(columba.ir.__file__).parents[1]
    return sorted(file for folder in FOLDERS for file in _sources(str(root / folder), deep=folder != "."))


def _sources(folder: str, deep: bool) -> list[str]:
    """The source files in a folder, and in those in it if ``deep``. (``Path.glob`` takes as long as reading them all.)"""
    found: list[str] = []
    for entry in os.scandir(folder):
        if entry.name.endswith((".py", ".jinja", ".h")):
            found.append(entry.path)
        elif deep and entry.is_dir():
            found += _sources(entry.path, deep)
    return found
