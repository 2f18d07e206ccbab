"""Shared libraries and compilers that are not as one hopes."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from own_cache import answer, entry, fresh_process, library_name, planted

import columba
from columba.runtime import build, cache, library, warn
from columba.runtime.graphs import sorts


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fresh_process(monkeypatch):
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(path))
    return path


# ------------------------------------------------------------------------------------------------ libraries


def test_a_checksum_that_fits_what_is_no_library(folder: Path) -> None:
    """A library that is cut short would end the process where its end is touched."""
    name = library_name(answer(3))
    assert build.build(answer(3)).answer() == 3
    whole = cache.find(name.removesuffix(".so"), ".so")
    assert whole is not None
    for content in (b"", b"\x7fELF", b"no library", whole[:4096], whole[: len(whole) // 2], whole[:-1], bytes(5000)):
        with pytest.raises(OSError, match="shared library"):
            library.load(content)
        (folder / name).write_bytes(entry(name, content))
        assert build.build(answer(3)).answer() == 3
        assert cache.find(name.removesuffix(".so"), ".so") == whole
    text = (folder / name).read_bytes()
    (folder / name).write_bytes(text[:4096])
    assert build.build_emitted("three", lambda: [answer(3)]).answer() == 3
    (folder / name).write_bytes(entry(name, whole[:4096]))
    assert build.build_emitted("three", lambda: [answer(3)]).answer() == 3


def test_libraries_are_loaded_from_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of their files; two that get the same descriptor are two."""
    open_before = len(os.listdir("/proc/self/fd"))
    one, two = build.build(answer(4)), build.build(answer(5))
    assert (one.answer(), two.answer()) == (4, 5)
    assert build.build(answer(4)) is one
    for path in folder.glob("*.so"):
        path.write_bytes(b"")
    shutil.rmtree(folder)
    assert (one.answer(), two.answer()) == (4, 5)
    assert len(os.listdir("/proc/self/fd")) == open_before

    def forbidden(*_: Any) -> int:
        raise PermissionError(errno.EPERM, "memory may not be run")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    assert library._load(planted()).answer() == 666
    monkeypatch.setattr(ctypes, "CDLL", lambda path: forbidden())
    monkeypatch.setattr(library, "_loaded", {})
    with pytest.raises(build.BuildError, match="memory may not be run"):
        build.build(answer(4))


def test_a_folder_that_is_mounted_noexec(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is mapped from it."""
    load = ctypes.CDLL

    def not_from_there(path: str) -> ctypes.CDLL:
        if os.path.realpath(path).startswith(str(folder)):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", not_from_there)
    assert build.build(answer(6)).answer() == 6
    assert build.build_emitted("six", lambda: [answer(6)]).answer() == 6
    assert len(list(folder.glob("*.so"))) == 1


# ------------------------------------------------------------------------------------------------ compilers

COMPILERS = {
    "fails": ("echo 'internal compiler error' >&2; exit 1", "internal compiler error"),
    "says garbage": (r"printf '\377\376\033[31m'; exit 3", "the C\\+\\+ compiler failed"),
    "makes nothing": ("exit 0", "made no shared library"),
    "makes garbage": (
        'while [ "$1" != -o ]; do shift || exit 0; done; echo garbage > "$2"',
        "it is no shared library: it has 8 bytes",
    ),
    "hangs": ("sleep 100", "took longer than 0.3 s"),
    "leaves a child": ("sleep 100 & exit 1", "took longer than 0.3 s|the C\\+\\+ compiler failed"),
    "crashes": ("kill -SEGV $$", "failed, by SIGSEGV"),
    "writes too much": ("kill -XFSZ $$", "failed, by SIGXFSZ"),
    "wants input": ("cat; exit 1", "the C\\+\\+ compiler failed"),
}


def test_compilers_that_fail(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name it is an error that says what happened; else PyTorch runs the call, and the compiler is not asked again."""
    monkeypatch.setattr(build, "SHORT_PATIENCE", 5.0)
    monkeypatch.setattr(build, "PATIENCE", 0.3)
    graph, h = columba.Graph(torch.tensor([[0, 1, 1], [1, 1, 0]])), torch.tensor([[1.0], [2.0]])
    compiler, asked = tmp_path / "cxx", tmp_path / "asked"
    monkeypatch.setenv("CXX", str(compiler))
    for name, (script, message) in COMPILERS.items():
        compiler.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo {name} && exit\necho x >> {asked}\n{script}\n', encoding="utf-8"
        )
        compiler.chmod(0o755)
        build.compiler_version.cache_clear()
        build._hung.clear()
        sorts._failed.clear()

        def total(g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
            return g.edges.sum(g.edges.src(h))

        with pytest.raises(build.BuildError, match=message):
            columba.compile(total, backend="cpp")(graph, h)
        warn._warned.clear()
        compiled = columba.compile(total)
        with pytest.warns(RuntimeWarning, match='Falling back to backend="torch"'):
            assert compiled(graph, h).tolist() == [[2.0], [3.0]], name
        asked.write_text("")
        assert compiled(graph, h + 1).tolist() == [[3.0], [5.0]]
        assert asked.read_text() == "", name
    assert not list(Path(build.tempfile.gettempdir()).glob(f"{build.BUILDING}*/sleep"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("'c++", "CXX='c\\+\\+ is no command: No closing quotation"),
        ("/", "CXX=/ is not on the PATH"),
        ("no-such-compiler -x", "CXX=no-such-compiler -x is not on the PATH"),
    ],
)
def test_commands_that_are_none(folder: Path, given: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", given)
    with pytest.raises(build.CompilerNotFound, match=message):
        build.build(answer(7))


def test_commands_that_are_some(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be run; none at all, which means the usual one; one with blanks in its name, and arguments."""
    program = tmp_path / "a program"
    program.write_bytes(b"\0\1\2")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{program}'")
    with pytest.raises(build.BuildError, match="cannot be run"):
        build.build(answer(7))
    program.unlink()
    program.symlink_to(shutil.which("c++") or "")
    monkeypatch.setenv("CXX", f"'{program}' -DSEVEN=7")
    assert build.build('extern "C" int answer() { return SEVEN; }').answer() == 7
    monkeypatch.setenv("CXX", "  ")
    assert build.find_compiler() == "c++"


def test_a_limit_on_the_size_of_files(folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(build.BuildError, match="C\\+\\+ compiler"):
                build.build(answer(8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert build.build(answer(8)).answer() == 8


def test_builds_need_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of temporary files, or, where there is none, the cache folder."""
    folder.mkdir(mode=0o700)
    made = build.tempfile.TemporaryDirectory

    def only_elsewhere(*args: Any, dir: Any = None, **kwargs: Any) -> Any:
        if dir is None:
            raise FileNotFoundError("No usable temporary directory found")
        return made(*args, dir=dir, **kwargs)

    monkeypatch.setattr(build.tempfile, "TemporaryDirectory", only_elsewhere)
    assert build.build(answer(9)).answer() == 9
    monkeypatch.setenv("COLUMBA_CACHE_DIR", "/proc/none")
    with pytest.raises(build.BuildError, match="Set TMPDIR"):
        build.build(answer(10))


def test_sorts_do_without_a_compiler_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> Any:
        failing.calls += 1  # type: ignore[attr-defined]
        raise build.BuildError("no")

    failing.calls = 0  # type: ignore[attr-defined]
    failing.cache_info = sorts._library.cache_info  # type: ignore[attr-defined]
    monkeypatch.setattr(sorts, "_library", failing)
    cpu = torch.device("cpu")
    with pytest.warns(RuntimeWarning, match="prepared by PyTorch, which is slower: no"):
        assert isinstance(sorts.sorts_for(cpu), sorts.TorchSorts)
    assert isinstance(sorts.sorts_for(cpu), sorts.TorchSorts)
    assert failing.calls == 1  # type: ignore[attr-defined]
