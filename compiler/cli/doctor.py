"""What a machine has that matters to Columba."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

import columba
from columba.runtime.build import BuildError, CompilerNotFound, find_compiler
from columba.runtime.cache import cache_dir
from columba.runtime.cache_folder import UntrustedError, opened, write


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``ok`` is None where nothing can be wrong."""

    what: str
    found: str
    ok: bool | None = None
    advice: str = ""
    needed: bool = True


def examine() -> list[Finding]:
    """Everything, the most basic first."""
    return [
        Finding("columba", columba.__version__),
        Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        *(
            _package(name, why)
            for name, why in (("triton", "GPU kernels"), ("torch_geometric", "PyG models"), ("rdflib", "RDF data"))
        ),
        Finding(
            "processor", f"{_processor()}, {os.cpu_count()} cores, vectors: {torch.backends.cpu.get_cpu_capability()}"
        ),
        _gpu(),
        *_compiler(),
        _cache(),
    ]


def _package(name: str, why: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, f"not installed (for {why})")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", "none that PyTorch can use")
    return Finding("GPU", ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())))


def _compiler() -> list[Finding]:
    """Whether there is a C++ compiler, and whether a compiled program gives the right result."""
    try:
        path = find_compiler()
    except CompilerNotFound as e:
        return [Finding("C++ compiler", "none", False, f"{e}")]
    found = Finding("C++ compiler", path, True)
    try:
        result = _tiny_program()
    except (BuildError, OSError) as e:
        return [found, Finding("kernels", "cannot be built", False, str(e))]
    right = result == [[0.0], [3.0]]
    return [
        found,
        Finding(
            "kernels",
            "built and run" if right else f"wrong result {result}",
            right,
            "report this, with the compiler's version",
        ),
    ]


def _tiny_program() -> list[list[float]]:
    @columba.compile(backend="cpp")
    def total(g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
        return g.edges.sum(g.edges.src(h))

    graph = columba.Graph(torch.tensor([[0, 0], [1, 1]]))
    values: list[list[float]] = total(graph, torch.tensor([[1.5], [0.0]])).tolist()
    return values


def _cache() -> Finding:
    folder = cache_dir()
    try:
        with opened(cache_dir(), create=True) as handle:
            name = f"{os.urandom(16).hex()}.tmp"
            write(name, handle, b"")
            os.unlink(name, dir_fd=handle)
    except OSError as e:
        advice = (
            f"{e}" if isinstance(e, UntrustedError) else f"{e}; set COLUMBA_CACHE_DIR to a folder that can be written"
        )
        return Finding("kernel cache", f"{folder}", False, advice, needed=False)
    return Finding("kernel cache", str(folder), True)
