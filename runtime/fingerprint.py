"""Cache keys: what identifies this version of Columba: what older versions stored is not read."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator

PACKAGES = ("ir", "passes", "gradient", "lowering", "selection", "codegen")
"""Of the package: with the modules directly in it, what decides how programs are compiled."""


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
    found = [
        file for name in PACKAGES for folder in folders_of(f"columba.{name}") for file in _sources(folder, deep=True)
    ]
    return sorted([*found, *(file for folder in folders_of("columba") for file in _sources(folder, deep=False))])


def folders_of(package: str) -> Iterator[str]:
    """Where the modules of a package lie: in a checkout that is installed as it stands, not all in one folder."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    yield from spec.submodule_search_locations or ()


def _sources(folder: str, deep: bool) -> list[str]:
    """The source files in a folder, and in those in it if ``deep``. (``Path.glob`` takes as long as reading them all.)"""
    found: list[str] = []
    for entry in os.scandir(folder):
        if entry.name.endswith((".py", ".jinja", ".h")):
            found.append(entry.path)
        elif deep and entry.is_dir():
            found += _sources(entry.path, deep)
    return found
