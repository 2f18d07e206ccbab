"""What identifies this version of Columba: what older versions stored is not read."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import columba.ir

FOLDERS = (".", "passes", "ir", "codegen")
"""Of the package: what decides how programs are compiled. Of the first, the modules directly in it."""


@functools.cache
def fingerprint() -> str:
    """The hash of the source of the compiler: passes, lowering, code generation."""
    root = Path(columba.ir.__file__).parents[1]
    files: list[Path] = []
    for folder in FOLDERS:
        pattern = "*" if folder == "." else "**/*"
        files += (f for f in (root / folder).glob(pattern) if f.suffix in (".py", ".jinja", ".h"))
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
