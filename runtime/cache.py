"""Files that outlive a process: the kernel cache.

An entry is a file and, beside it, the SHA-256 of its content. Both are written to temporary files first and renamed, the checksum
last; an entry whose checksum is missing or wrong (a killed process, a full disk, a flipped bit) is built again, never trusted. One
process builds an entry while others wait for it. A folder that cannot be written is replaced by a private temporary one, with a
warning.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

STALE_SECONDS = 3600
"""Temporary files older than this were left by processes that died."""


def cache_dir() -> Path:
    """``$COLUMBA_CACHE_DIR``, or ``columba`` in the user's cache folder."""
    given = os.environ.get("COLUMBA_CACHE_DIR")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("columba", appauthor=False))


def get_or_build(key: str, suffix: str, build: Callable[[Path], None]) -> Path:
    """The cached file called ``key``; if there is none, or a damaged one, ``build(path)`` writes it to a temporary path first."""
    try:
        return _get_or_build(cache_dir(), key, suffix, build)
    except OSError as e:
        _warn_unwritable(e)
        return _get_or_build(_private_dir(), key, suffix, build)


def find(key: str, suffix: str) -> Path | None:
    """The cached file called ``key``, if it is there and whole."""
    path = cache_dir() / f"{key}{suffix}"
    return path if _is_sound(path) else None


def remove(key: str, suffix: str) -> None:
    """Forgets an entry whose content makes no sense."""
    for folder in (cache_dir(), *_private):
        _checksum(folder / f"{key}{suffix}").unlink(missing_ok=True)


def _get_or_build(folder: Path, key: str, suffix: str, build: Callable[[Path], None]) -> Path:
    path = folder / f"{key}{suffix}"
    if _is_sound(path):
        return path
    import filelock  # only where something is built

    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{key}.lock"):
        if _is_sound(path):
            return path
        _remove_stale(folder)
        handle, name = tempfile.mkstemp(prefix=f"{key}.", suffix=f"{suffix}.tmp", dir=folder)
        os.close(handle)
        temporary = Path(name)
        try:
            build(temporary)
            digest = _digest(temporary)
            _sync(temporary)
            _checksum(path).unlink(missing_ok=True)
            os.replace(temporary, path)
            _write_atomically(_checksum(path), digest)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _checksum(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_sound(path: Path) -> bool:
    """Whether an entry is there and whole."""
    try:
        return _checksum(path).read_text() == _digest(path)
    except OSError:
        return False


def _sync(path: Path) -> None:
    with path.open("rb") as f:
        os.fsync(f.fileno())


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    with os.fdopen(handle, "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(name, path)


def _remove_stale(folder: Path) -> None:
    for left in folder.glob("*.tmp"):
        try:
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink()
        except OSError:
            continue  # another process removed it, or owns it


_private: list[Path] = []


def _private_dir() -> Path:
    """A folder of this process alone, removed when it ends."""
    if not _private:
        _private.append(Path(tempfile.mkdtemp(prefix="columba-")))
        atexit.register(shutil.rmtree, _private[0], ignore_errors=True)
    return _private[0]


_warned = False


def _warn_unwritable(error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"columba: the cache folder {cache_dir()} cannot be used ({error}); kernels are built again in every process. "
            "Set COLUMBA_CACHE_DIR to a writable folder.",
            RuntimeWarning,
            stacklevel=4,
        )


@dataclass(frozen=True)
class CacheInfo:
    """Where the cache is, and how much is in it."""

    folder: Path
    entries: int
    bytes: int


def cache_info() -> CacheInfo:
    folder = cache_dir()
    sizes = [f.stat().st_size for f in folder.iterdir() if f.is_file()] if folder.is_dir() else []
    entries = len(list(folder.glob("*.sha256"))) if folder.is_dir() else 0
    return CacheInfo(folder, entries, sum(sizes))


def clear_cache() -> int:
    """Removes all entries and returns how many there were. Kernels that are loaded stay loaded."""
    info = cache_info()
    if info.folder.is_dir():
        for pattern in ("*.sha256", "*.so", "*.cpp", "*.json", "*.txt", "*.tmp", "*.lock"):
            for f in info.folder.glob(pattern):
                f.unlink(missing_ok=True)
    return info.entries
