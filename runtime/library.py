"""Shared libraries loaded from memory: what was checked is what is mapped.

A library is loaded from a sealed copy that no file name leads to. So it does not matter whether its file can be replaced, cut short or
removed while its pages are in use (on a network file system that is a bus error), nor whether its folder is mounted noexec.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import itertools
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_loaded: dict[bytes, ctypes.CDLL] = {}


def load(content: bytes) -> ctypes.CDLL:
    """The library with these bytes, loaded once in a process.

    Raises:
        OSError: it is no whole shared library of this machine, or this process may not load any.
    """
    digest = hashlib.sha256(content).digest()
    if digest not in _loaded:
        check(content)
        _loaded[digest] = _load(content)
    return _loaded[digest]


def _load(content: bytes) -> ctypes.CDLL:
    errors = []
    for copy in (_in_memory, _in_temporary_folder):
        try:
            with copy(content) as path:
                return ctypes.CDLL(path)
        except OSError as e:
            errors.append(str(e))
    raise OSError("; ".join(errors))


_numbers = itertools.count(1)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The name of a sealed copy in memory."""
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no files in memory")
    handle = os.memfd_create("columba", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(handle, "wb", closefd=False) as f:
            f.write(content)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        # The dynamic linker takes a library of the same name for the same library, and numbers of descriptors come again.
        unique = "".join("./" if bit == "1" else "/" for bit in f"{next(_numbers):b}")
        yield f"/proc/self/fd/{unique}{handle}"
    finally:
        os.close(handle)


@contextlib.contextmanager
def _in_temporary_folder(content: bytes) -> Iterator[str]:
    """The name of a copy in a folder of this process alone."""
    with tempfile.TemporaryDirectory(prefix="columba-") as folder:
        path = Path(folder) / "library.so"
        path.write_bytes(content)
        yield str(path)


def check(content: bytes) -> None:
    """Raises OSError where the dynamic linker would map what is not there, and the first touch of it would end the process."""
    if sys.platform != "linux":
        return
    if content[:4] != b"\x7fELF":
        raise OSError(f"it is no shared library: it has {len(content)} bytes, and begins with {content[:4]!r}")
    wide, order = content[4:5] == b"\x02", "<" if content[5:6] == b"\x01" else ">"
    try:
        # e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum
        header = struct.unpack_from(f"{order}{'QQ' if wide else 'II'}IHHHHH", content, 32 if wide else 28)
        programs, sections, _, _, size, count, section_size, section_count = header
        end = sections + section_size * section_count
        for n in range(count):
            at = programs + n * size
            offset, length = (
                (
                    struct.unpack_from(f"{order}Q", content, at + 8)[0],
                    struct.unpack_from(f"{order}Q", content, at + 32)[0],
                )
                if wide
                else (
                    struct.unpack_from(f"{order}I", content, at + 4)[0],
                    struct.unpack_from(f"{order}I", content, at + 16)[0],
                )
            )
            end = max(end, offset + length)
    except struct.error:
        end = len(content) + 1
    if end > len(content):
        raise OSError(f"the shared library is cut short: it has {len(content)} bytes")
