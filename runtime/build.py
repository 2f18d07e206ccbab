"""From C++ source to a loaded shared library, by the system's compiler."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from columba.runtime.cache import cache_dir, find, get_or_make, remove
from columba.runtime.fingerprint import fingerprint
from columba.runtime.library import check, load
from columba.runtime.logs import logger
from columba.runtime.progress import progress

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
    """There is a C++ compiler, and no library that can be loaded came of it; holds the command and what the compiler said."""


LOG = logger("build")

TITLE = "// Columba: "
"""How the source of kernels begins; the name of their plan follows."""

PATIENCE = 300.0
"""Seconds that the compiler may take."""

SHORT_PATIENCE = 20.0
"""Seconds that it may take to say its version."""

BUILDING = "columba-build-"
"""How folders begin in which something is built."""

MOST_OUTPUT = 4000
"""Characters of what a compiler says that an error repeats."""


def find_compiler() -> str:
    """The compiler's command: ``$CXX``, or the first of c++, g++ and clang++ on the PATH."""
    given = os.environ.get("CXX", "").strip()
    for name in (given,) if given else ("c++", "g++", "clang++"):
        try:
            program = shlex.split(name)[0]
        except ValueError as e:
            raise CompilerNotFound(f"CXX={given} is no command: {e}. Quote it as in a shell.") from e
        if shutil.which(program) is not None:
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
    identity = f"{compiler}\n{os.environ.get('PATH')}\n{program}\n{file.st_size}\n{file.st_mtime_ns}\n{file.st_ino}"
    entry = "compiler-" + hashlib.sha256(identity.encode()).hexdigest()[:32]
    return get_or_make(entry, ".txt", lambda: _ask_version(compiler).encode()).decode(errors="replace")


def _ask_version(compiler: str) -> str:
    _, output = _run([[*shlex.split(compiler), "--version"]], SHORT_PATIENCE, None)[0]
    return output.splitlines()[0] if output else "unknown version"


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


def build(*sources: str) -> ctypes.CDLL:
    """The loaded library of ``sources``, from the cache if it was built before. They are compiled side by side.

    Raises:
        CompilerNotFound: there is no C++ compiler.
        BuildError: the compiler failed, or what it made cannot be loaded.
    """
    compiler = find_compiler()
    key = library_key(compiler, _digest(sources))

    def loaded() -> ctypes.CDLL:
        return load(get_or_make(key, ".so", functools.partial(_compile, compiler, sources)))

    try:
        return loaded()
    except OSError:
        remove(key, ".so")  # its checksum may fit what is no library
    try:
        return loaded()
    except OSError as e:
        remove(key, ".so")
        raise BuildError(f"the library that {compiler} made cannot be loaded: {e}") from e


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


def build_emitted(text: str, emit: Callable[[], Sequence[str]]) -> ctypes.CDLL:
    """The loaded library of the sources that ``emit`` makes of what ``text`` says. A text seen before is not emitted again.

    Raises: as :func:`build`.
    """
    compiler = find_compiler()
    entry = "emitted-" + hashlib.sha256(f"{fingerprint()}\n{text}".encode()).hexdigest()[:32]
    known = find(entry, ".txt")
    if known is not None:
        library = find(library_key(compiler, known.decode(errors="replace")), ".so")
        if library is not None:
            with contextlib.suppress(OSError):  # no library, which is then built again
                return load(library)
    sources = emit()
    built = build(*sources)
    if known is None:
        get_or_make(entry, ".txt", lambda: _digest(sources).encode())
    return built


def _compile(compiler: str, sources: Sequence[str]) -> bytes:
    """The shared library of sources, made in a folder of this process alone, which nobody else clears."""
    begin = time.perf_counter()
    first = sources[0].partition("\n")[0]
    what = first.removeprefix(TITLE) if first.startswith(TITLE) else "Columba itself"
    with progress(f"compiling the kernels of {what}"):
        content = _library(compiler, sources)
    LOG.info("the kernels of %s are compiled, in %.1f s", what, time.perf_counter() - begin)
    return content


def _library(compiler: str, sources: Sequence[str]) -> bytes:
    try:
        with _workplace() as name:
            folder = Path(name)
            texts = [folder / f"{n}.cpp" for n in range(len(sources))]
            objects = [folder / f"{n}.o" for n in range(len(sources))]
            target = folder / "library.so"
            for text, source in zip(texts, sources, strict=True):
                text.write_text(source, encoding="utf-8")
            commands = [compile_command(compiler, text, made) for text, made in zip(texts, objects, strict=True)]
            LOG.debug("%s", "\n".join(map(shlex.join, commands)))
            _compiled(commands, name)
            command = link_command(compiler, objects, target)
            _compiled([command], name)
            try:
                content = target.read_bytes()
                check(content)
            except OSError as e:
                raise BuildError(f"the C++ compiler made no shared library: {shlex.join(command)}\n{e}") from e
            return content
    except OSError as e:
        raise BuildError(f"there is no room to build in: {e}. Set TMPDIR to a folder that can be written.") from e


def _workplace() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process alone: not in the cache folder, which others may clear, if there is another."""
    try:
        return tempfile.TemporaryDirectory(prefix=BUILDING, ignore_cleanup_errors=True)
    except OSError:
        return tempfile.TemporaryDirectory(prefix=BUILDING, dir=cache_dir(), ignore_cleanup_errors=True)


def _compiled(commands: Sequence[Sequence[str]], folder: str) -> None:
    """Runs commands of a compiler at the same time, its own temporary files in ``folder``; BuildError if one fails, once all have ended."""
    for command, (status, output) in zip(commands, _run(commands, PATIENCE, folder), strict=True):
        if status:
            how = f", by {signal.Signals(-status).name}" if -status in set(signal.Signals) else ""
            raise BuildError(f"the C++ compiler failed{how}: {shlex.join(command)}\n{_cut(output)}")


_hung: set[str] = set()
"""Compilers that took too long: nobody waits for one twice."""


def _run(commands: Sequence[Sequence[str]], patience: float, folder: str | None) -> list[tuple[int, str]]:
    """Runs commands at the same time: how each ended, and its output. BuildError where one cannot be run, or takes too long."""
    program = commands[0][0]
    if program in _hung:
        raise BuildError(f"the C++ compiler {program} took too long before, and is not tried again in this process")
    running: list[subprocess.Popen[str]] = []
    end = time.monotonic() + patience
    try:
        for command in commands:
            running.append(_started(command, folder))
        outputs = [process.communicate(timeout=max(0.0, end - time.monotonic()))[0] for process in running]
    except subprocess.TimeoutExpired as e:
        _hung.add(program)
        raise BuildError(f"the C++ compiler took longer than {patience:g} s: {shlex.join(commands[0])}") from e
    finally:
        for process in running:
            _end(process)
    return [(process.returncode, output) for process, output in zip(running, outputs, strict=True)]


def _started(command: Sequence[str], folder: str | None) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            env=None if folder is None else {**os.environ, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # a group of its own, with all that the compiler starts
        )
    except (OSError, ValueError) as e:
        raise BuildError(f"the C++ compiler cannot be run: {e}") from e


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a process that has not ended, and what it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cut(output: str) -> str:
    return (
        output
        if len(output) <= MOST_OUTPUT
        else f"{output[:MOST_OUTPUT]}\n... ({len(output) - MOST_OUTPUT} characters more)"
    )
