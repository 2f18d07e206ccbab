"""The folder of files that outlive a process, opened so that nobody else has a hand in it.

What is read there is run, so it is read only where this user, or root, could have written it. Every component of the folder's path is
opened relative to the one before: symbolic links are followed where this user or root made them, and the folder itself must belong to one
of the two and be closed to the writes of all others, with or without the sticky bit. All further work goes through the descriptor, so
that what was checked is what is used, whoever owns the folders above. Files are held to the same rule, are regular, and are no links.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

MOST_LINKS = 40
"""Symbolic links on one path, as in Linux."""

MOST_MADE = 100
"""Folders made on one path, while others remove them."""

LONGEST = 4000
"""Bytes of a path."""

_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # to open a FIFO must not wait for its writer
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UntrustedError(OSError):
    """Somebody else has, or could have, written here, or it is no file or folder; the message says what to do."""


@contextlib.contextmanager
def opened(path: Path, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder at ``path``; with ``create``, what is missing of it is made, for this user alone.

    Raises:
        UntrustedError: others own the folder, or can write to it, or made a link that leads to it.
        OSError: it cannot be entered, or is not there.
    """
    handle = _open(path, create)
    try:
        yield handle
    finally:
        os.close(handle)


def _open(path: Path, create: bool) -> int:
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise OSError(f"{path}: no such home folder is known; set HOME or COLUMBA_CACHE_DIR")
    if len(os.fsencode(path)) > LONGEST:  # which would come to light when half of it is made
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    rest = list(path.absolute().parts)
    at = os.open(rest.pop(0), _STEP)
    links = made = 0
    try:
        while rest:
            name = rest[0]
            try:
                below = os.open(name, _STEP, dir_fd=at)
            except FileNotFoundError:
                if not create:
                    raise
                made += 1
                if made > MOST_MADE:
                    raise
                with contextlib.suppress(FileExistsError):  # another process was faster
                    os.mkdir(name, 0o700, dir_fd=at)
                continue
            except OSError as e:
                if e.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                target = _target_of_own_link(path, name, at)
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
                rest[:1] = [part for part in target.split("/") if part]
                if target.startswith("/"):
                    os.close(at)
                    at = os.open("/", _STEP)
                continue
            del rest[0]
            os.close(at)
            at = below
        _check(os.fstat(at), str(path), "folder", f"chmod 700 {path}")
        return os.open(".", _FOLDER, dir_fd=at)
    finally:
        os.close(at)


def _target_of_own_link(path: Path, name: str, at: int) -> str:
    """Where the link ``name``, on the way to ``path``, leads."""
    found = os.stat(name, dir_fd=at, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{name} is a file, not a folder", str(path))
    if found.st_uid not in (0, os.geteuid()):
        raise UntrustedError(
            f"{path} leads over {name}, a symbolic link that another user made (uid {found.st_uid}); set COLUMBA_CACHE_DIR to a "
            "folder of your own"
        )
    return os.readlink(name, dir_fd=at)


def _check(found: os.stat_result, where: str, what: str, remedy: str) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise UntrustedError(
            f"the {what} {where} belongs to another user (uid {found.st_uid}), who could have planted code in it; "
            "set COLUMBA_CACHE_DIR to a folder of your own"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UntrustedError(
            f"other users can write to the {what} {where} (mode {stat.S_IMODE(found.st_mode):04o}), and could have planted code in it; "
            f"make sure that they have not, then: {remedy}"
        )


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_file(name: str, folder: int, path: Path, remedy: str = "rm") -> None:
    """Looks at a file without opening it. ``remedy`` is the command that mends one that others can write to.

    Raises:
        UntrustedError: it is no regular file, or others own it or can write to it.
        FileNotFoundError: it is not there.
    """
    _check_file(os.stat(name, dir_fd=folder, follow_symlinks=False), path / name, remedy)


def _check_file(found: os.stat_result, path: Path, remedy: str = "rm") -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise UntrustedError(f"{path} is {kind} where a file should be; remove it: rm -r {path}")
    _check(found, str(path), "file", f"{remedy} {path}")


def read(name: str, folder: int, path: Path) -> bytes:
    """The content of the file ``name`` in the folder, whose path is said where it is refused.

    Raises: as :func:`check_file`, and other OSErrors.
    """
    check_file(name, folder, path)  # a device is not even opened
    handle = os.open(name, _READ, dir_fd=folder)
    with open(handle, "rb") as f:
        _check_file(os.fstat(handle), path / name)
        return f.read()


def touch(name: str, folder: int) -> None:
    """Makes an empty file for this user alone, if there is none."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, _WRITE, 0o600, dir_fd=folder))


def write(name: str, folder: int, content: bytes) -> None:
    """Puts a file into the folder, for this user alone, whole or not at all, in place of one of that name."""
    temporary = f"{name}.{os.urandom(6).hex()}.tmp"
    try:
        with open(os.open(temporary, _WRITE, 0o600, dir_fd=folder), "wb") as f:
            f.write(content)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


@contextlib.contextmanager
def locked(name: str, folder: int, patience: float) -> Iterator[None]:
    """Keeps other processes that lock the same name out, as far as that can be had.

    Nothing that is written depends on it, for all of it is renamed into place whole: it only spares two processes the same work. So
    it does without where the file system has no locks or the lock file was removed, and after ``patience`` seconds.
    """
    try:
        handle = os.open(name, _LOCK, 0o600, dir_fd=folder)
    except OSError:
        yield
        return
    try:
        _wait_for(handle, patience)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile holds the file open, too
        os.close(handle)


def _wait_for(handle: int, patience: float) -> None:
    end, pause = time.monotonic() + patience, 0.001
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as e:
            if e.errno not in (errno.EWOULDBLOCK, errno.EACCES) or time.monotonic() > end:
                return
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
