"""From C++ source to a loaded shared library, by the system's compiler."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from columba.runtime.cache import find, get_or_build
from columba.runtime.fingerprint import fingerprint

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-semantic-interposition",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
)
"""No -ffast-math: infinities and NaN keep their meaning, and sums their order."""


class CompilerNotFound(RuntimeError):
    """There is no C++ compiler."""


class BuildError(RuntimeError):
    """The C++ compiler rejected generated source; holds the command and what the compiler said."""


def find_compiler() -> str:
    """The compiler's command: ``$CXX``, or the first of c++, g++ and clang++ on the PATH."""
    given = os.environ.get("CXX")
    for name in (given,) if given else ("c++", "g++", "clang++"):
        path = shutil.which(shlex.split(name)[0])
        if path is not None:
            return name
    what = f"CXX={given} is not on the PATH" if given else "no C++ compiler (c++, g++, clang++) is on the PATH"
    raise CompilerNotFound(f"{what}. Install one (Debian: apt install g++; macOS: xcode-select --install), or set CXX.")


@functools.cache
def compiler_version(compiler: str) -> str:
    """The first line that the compiler says of itself."""
    command = [*shlex.split(compiler), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else "unknown version"


@functools.cache
def cpu() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(next((line for line in lines if line.startswith(w)), "") for w in wanted)


@functools.cache
def openmp_library() -> Path | None:
    """The OpenMP runtime that PyTorch has loaded, if it brought its own.

    Two runtimes in one process would have two pools of threads, each spinning while the other works.
    """
    folder = Path(torch.__file__).parent / "lib"
    found = sorted(folder.glob("libgomp*.so*"))
    beside = Path(torch.__file__).parents[1] / "torch.libs"
    found += sorted(beside.glob("libgomp*.so*")) if beside.is_dir() else []
    return found[0] if found else None


def build_command(compiler: str, source: Path, target: Path) -> list[str]:
    """The command that builds ``target``."""
    command = [*shlex.split(compiler), *FLAGS, "-x", "c++", str(source), "-o", str(target)]
    library = openmp_library()
    if library is None:
        return command
    return [*command, "-x", "none", "-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}"]


def build(source: str) -> Path:
    """The shared library of ``source``, from the cache if it was built before.

    Raises:
        CompilerNotFound: there is no C++ compiler.
        BuildError: the compiler failed.
    """
    compiler = find_compiler()
    key = library_key(compiler, hashlib.sha256(source.encode()).hexdigest())
    return get_or_build(key, ".so", functools.partial(_compile, compiler, source))


def library_key(compiler: str, digest: str) -> str:
    """The name under which the library of a source with this SHA-256 is kept."""
    library = str(openmp_library())
    identity = "\n".join([digest, *FLAGS, compiler, compiler_version(compiler), cpu(), library, torch.__version__])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def is_built(source: str) -> bool:
    """Whether the library of ``source`` is in the cache."""
    key = library_key(find_compiler(), hashlib.sha256(source.encode()).hexdigest())
    return find(key, ".so") is not None


def build_emitted(text: str, emit: Callable[[], str]) -> Path:
    """The shared library of the source that ``emit`` makes of what ``text`` says. A text seen before is not emitted again.

    Raises: as :func:`build`.
    """
    compiler = find_compiler()
    entry = "emitted-" + hashlib.sha256(f"{fingerprint()}\n{text}".encode()).hexdigest()[:32]
    known = find(entry, ".txt")
    if known is not None:
        library = find(library_key(compiler, known.read_text()), ".so")
        if library is not None:
            return library
    source = emit()
    built = build(source)
    if known is None:
        get_or_build(entry, ".txt", lambda path: _write_digest(path, source))
    return built


def _write_digest(path: Path, source: str) -> None:
    path.write_text(hashlib.sha256(source.encode()).hexdigest())


def _compile(compiler: str, source: str, target: Path) -> None:
    text = target.with_suffix(".cpp.tmp")
    text.write_text(source)
    command = build_command(compiler, text, target)
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    finally:
        text.unlink(missing_ok=True)
    if done.returncode:
        raise BuildError(f"the C++ compiler failed: {shlex.join(command)}\n{done.stderr or done.stdout}")


@functools.cache
def load(path: Path) -> ctypes.CDLL:
    """The loaded library."""
    return ctypes.CDLL(str(path))
