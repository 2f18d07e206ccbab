"""Files that outlive a process: the kernel cache.

An entry is one file: its content, then a line with the SHA-256 of its name and content. It is renamed into place whole; one whose last line
is missing or wrong (a killed process, a full disk, a flipped bit) is made again, never trusted, and so is one that others could have
written (see :mod:`columba.runtime.cache_folder`). What is checked is what is used: entries are read once, and callers get their bytes.

Of several processes that want an entry, one makes it while the others wait, but nothing depends on that, nor on a file that was there a
moment ago: any may be removed at any time, the folder included. Where the folder cannot or must not be used, a warning says why, and
entries are kept in memory, for this process alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from columba.runtime import cache_folder
from columba.runtime.config import config

STALE_SECONDS = 3600
"""Temporary files older than this were left by processes that died."""

PATIENCE = 60.0
"""Seconds that a process waits for another one that makes the same entry, before it makes it, too."""

ATTEMPTS = 5
"""To write an entry into a folder that others are removing."""


def cache_dir() -> Path:
    """``columba.config.cache_dir``: ``$COLUMBA_CACHE_DIR``, or ``columba`` in the user's cache folder."""
    folder: Path = config.cache_dir
    return folder


def get_or_make(key: str, suffix: str, make: Callable[[], bytes], patience: float | None = None) -> bytes:
    """The content of the entry called ``key``; if there is none, or a damaged one, what ``make()`` returns, which is kept.

    ``patience``: seconds to wait for another process that makes it; None: :data:`PATIENCE`.
    """
    name = key + suffix
    found = _find(name)
    if found is not None:
        return found
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # which is said where the entry is written
            folder = stack.enter_context(cache_folder.opened(cache_dir(), create=True))
            stack.enter_context(cache_folder.locked(f"{key}.lock", folder, PATIENCE if patience is None else patience))
            found = _find(name)
            if found is not None:
                return found
        content = make()
        _keep(name, content)
    return content


def find(key: str, suffix: str) -> bytes | None:
    """The content of the entry called ``key``, if it is there, whole and to be trusted."""
    return _find(key + suffix)


def replace(key: str, suffix: str, content: bytes) -> None:
    """Keeps an entry in the place of the one that there may be."""
    _kept.pop((cache_dir(), key + suffix), None)
    _keep(key + suffix, content)


def remove(key: str, suffix: str) -> None:
    """Forgets an entry whose content makes no sense."""
    _kept.pop((cache_dir(), key + suffix), None)
    with contextlib.suppress(OSError), cache_folder.opened(cache_dir()) as folder:
        os.unlink(key + suffix, dir_fd=folder)


_kept: dict[tuple[Path, str], bytes] = {}
"""What could not be written, by folder and name."""


def _find(name: str) -> bytes | None:
    kept = _kept.get((cache_dir(), name))
    if kept is not None:
        return kept
    try:
        path = cache_dir()
        with cache_folder.opened(path) as folder:
            stored = cache_folder.read(name, folder, path)
    except OSError as e:
        if not _is_gone(e):
            _warn_unusable(e)
        return None
    content = stored[:-TRAILER]
    return content if stored[-TRAILER:] == _trailer(name, content) else None


def _keep(name: str, content: bytes) -> None:
    """Writes an entry; where that cannot be, remembers it."""
    for attempt in range(ATTEMPTS):
        try:
            with cache_folder.opened(cache_dir(), create=True) as folder:
                cache_folder.write(name, folder, content + _trailer(name, content))
                if cache_dir() not in _swept:
                    _remove_stale(folder)
                    _swept.add(cache_dir())
            return
        except OSError as e:
            if _is_gone(e) and attempt + 1 < ATTEMPTS:
                continue  # others removed the folder, or the file before it was renamed
            _warn_unusable(e)
            break
    _kept[cache_dir(), name] = content


def _is_gone(error: OSError) -> bool:
    """Whether there is no such file, or another machine removed it while it was used."""
    return error.errno in (errno.ENOENT, errno.ESTALE)


def _trailer(name: str, content: bytes) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\0")
    digest.update(content)
    return f"\ncolumba {digest.hexdigest()}\n".encode()


TRAILER = len(_trailer("", b""))
"""Bytes of the last line of an entry."""


_swept: set[Path] = set()
"""Folders that this process has looked through for what others left: once, since that takes as long as there are entries."""


def _remove_stale(folder: int) -> None:
    with os.scandir(folder) as entries:
        left = [entry.name for entry in entries if entry.name.endswith(".tmp") and OURS.fullmatch(entry.name)]
    for name in left:
        with contextlib.suppress(OSError):  # another process removed it
            if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > STALE_SECONDS:
                os.unlink(name, dir_fd=folder)


_warned: set[str] = set()


def _warn_unusable(error: OSError) -> None:
    """Says once in a process why the folder, or a file in it, is not used."""
    if isinstance(error, cache_folder.UntrustedError):
        message = f"columba: {error}. Until then it is not used, and kernels are built again in every process."
    else:
        message = (
            f"columba: the cache folder {cache_dir()} cannot be used ({error}); kernels are built again in every process. "
            "Set COLUMBA_CACHE_DIR to a writable folder."
        )
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


# ------------------------------------------------------------------------------------------------ all of it

OURS = re.compile(r"(?:[a-z]+-)?[0-9a-f]{16,64}\.[\w.]*")
"""Names of files that this module made, in any version: nothing else is removed from the folder."""


@dataclass(frozen=True)
class CacheInfo:
    """Where the cache is, and how much is in it."""

    folder: Path
    entries: int
    bytes: int


def cache_info() -> CacheInfo:
    """What there is.

    Raises:
        OSError: the folder cannot be entered, or others can write to it.
    """
    path, sizes = cache_dir(), {}
    with contextlib.suppress(FileNotFoundError), cache_folder.opened(path) as folder:
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                sizes[name] = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    entries = sum(name.endswith((".so", ".json", ".txt")) and OURS.fullmatch(name) is not None for name in sizes)
    return CacheInfo(path, entries, sum(sizes.values()))


def clear_cache() -> int:
    """Removes all entries and returns how many there were. Kernels that are loaded stay loaded; builds that run go on.

    Raises: as :func:`cache_info`, or one of the files cannot be removed.
    """
    info = cache_info()
    left: OSError | None = None
    with contextlib.suppress(FileNotFoundError), cache_folder.opened(info.folder) as folder:
        for name in filter(OURS.fullmatch, os.listdir(folder)):
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                continue  # another process was faster
            except OSError as e:
                left = OSError(e.errno, e.strerror, str(info.folder / name))
        if left is not None:
            raise left
    return info.entries
