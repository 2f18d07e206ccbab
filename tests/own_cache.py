"""A cache folder of a test's own, and a process that has seen none before."""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from columba.runtime import build, cache, warn
from columba.runtime.graphs import sorts


@contextlib.contextmanager
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is known once in a process is forgotten, and what hangs is ended."""
    sorts.start_building_sorts().join()  # once in a process a thread builds them: not while a test counts files
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(cache, "_kept", {})
    monkeypatch.setattr(build, "_hung", set())
    monkeypatch.setattr(sorts, "_failed", [])
    monkeypatch.setattr(warn, "_warned", set())
    build.compiler_version.cache_clear()
    signal.alarm(300)
    yield
    signal.alarm(0)
    build.compiler_version.cache_clear()


def entry(name: str, content: bytes) -> bytes:
    """The file of an entry whose checksum is right."""
    return content + cache._trailer(name, content)


def answer(n: int) -> str:
    return f'extern "C" int answer() {{ return {n}; }}'


def library_name(source: str) -> str:
    return build.library_key(build.find_compiler(), build._digest([source])) + ".so"


@functools.cache
def planted() -> bytes:
    """A shared library that is sound, and wrong: it says 666."""
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name) / "a.cpp", Path(name) / "a.so"
        source.write_text(answer(666))
        subprocess.run(["c++", "-shared", "-fPIC", "-o", made, source], check=True)
        return made.read_bytes()
