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
from collections.abc import Callable, Sequence
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
    "-fno-exceptions",
    "-fopenmp",
    "-fPIC",
    "-w",
)
"""No -ffast-math: infinities and NaN keep their meaning, and sums their order. Nothing throws, and where the
compiler knows that it keeps more sums in registers. No warnings: nobody reads them, and finding them takes a twentieth of the time."""


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
    """The first line that the compiler says of itself: now, or, where its file is still the same, in a process before."""
    program = Path(shutil.which(shlex.split(compiler)[0]) or compiler).resolve()
    try:
        file = program.stat()
    except OSError:
        return _ask_version(compiler)
    said = f"{compiler}\n{os.environ.get('PATH')}\n{program}\n{file.st_size}\n{file.st_mtime_ns}\n{file.st_ino}"
    entry = "compiler-" + hashlib.sha256(said.encode()).hexdigest()[:32]
    return get_or_build(entry, ".txt", lambda path: _write(path, _ask_version(compiler))).read_text()


def _ask_version(compiler: str) -> str:
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


def compile_command(compiler: str, source: Path, target: Path) -> list[str]:
    """The command that compiles one source to an object file."""
    return [*shlex.split(compiler), *FLAGS, "-c", "-x", "c++", str(source), "-o", str(target)]


def link_command(compiler: str, objects: Sequence[Path], target: Path) -> list[str]:
    """The command that makes a shared library of object files."""
    command = [*shlex.split(compiler), *FLAGS, "-shared", *map(str, objects), "-o", str(target)]
    library = openmp_library()
    if library is None:
        return command
    return [*command, "-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}"]


def build(*sources: str) -> Path:
    """The shared library of ``sources``, from the cache if it was built before. They are compiled side by side.

    Raises:
        CompilerNotFound: there is no C++ compiler.
        BuildError: the compiler failed.
    """
    compiler = find_compiler()
    key = library_key(compiler, _digest(sources))
    return get_or_build(key, ".so", functools.partial(_compile, compiler, sources))


def _digest(sources: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def library_key(compiler: str, digest: str) -> str:
    """The name under which the library of sources with this SHA-256 is kept."""
    library = str(openmp_library())
    identity = "\n".join([digest, *FLAGS, compiler, compiler_version(compiler), cpu(), library, torch.__version__])
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def is_built(*sources: str) -> bool:
    """Whether the library of ``sources`` is in the cache."""
    return find(library_key(find_compiler(), _digest(sources)), ".so") is not None


def build_emitted(text: str, emit: Callable[[], Sequence[str]]) -> Path:
    """The shared library of the sources that ``emit`` makes of what ``text`` says. A text seen before is not emitted again.

    Raises: as :func:`build`.
    """
    compiler = find_compiler()
    entry = "emitted-" + hashlib.sha256(f"{fingerprint()}\n{text}".encode()).hexdigest()[:32]
    known = find(entry, ".txt")
    if known is not None:
        library = find(library_key(compiler, known.read_text()), ".so")
        if library is not None:
            return library
    sources = emit()
    built = build(*sources)
    if known is None:
        get_or_build(entry, ".txt", lambda path: _write(path, _digest(sources)))
    return built


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _compile(compiler: str, sources: Sequence[str], target: Path) -> None:
    texts = [target.with_suffix(f".{n}.cpp.tmp") for n in range(len(sources))]
    objects = [target.with_suffix(f".{n}.o.tmp") for n in range(len(sources))]
    try:
        for text, source in zip(texts, sources, strict=True):
            text.write_text(source)
        _run([compile_command(compiler, text, made) for text, made in zip(texts, objects, strict=True)])
        _run([link_command(compiler, objects, target)])
    finally:
        for file in (*texts, *objects):
            file.unlink(missing_ok=True)


def _run(commands: Sequence[Sequence[str]]) -> None:
    """Runs commands at the same time; BuildError if one fails, once all have ended."""
    running = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
        for c in commands
    ]
    said = [process.communicate() for process in running]
    for command, process, (out, err) in zip(commands, running, said, strict=True):
        if process.returncode:
            raise BuildError(f"the C++ compiler failed: {shlex.join(command)}\n{err or out}")


@functools.cache
def load(path: Path) -> ctypes.CDLL:
    """The loaded library."""
    return ctypes.CDLL(str(path))
