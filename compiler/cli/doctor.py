"""What a machine has that matters to Columba."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

import columba
from columba.runtime.backends import TRITON
from columba.runtime.build import BuildError, CompilerNotFound, find_compiler
from columba.runtime.cache import cache_dir
from columba.runtime.cache_folder import UntrustedError, opened, write
from columba.runtime.self_check.verdicts import mode
from columba.runtime.triton.functions import version


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
        Finding("triton", version() or "not installed (for GPU kernels)"),
        _package("torch_geometric", "PyG models"),
        _package("rdflib", "RDF data"),
        Finding(
            "processor", f"{_processor()}, {os.cpu_count()} cores, vectors: {torch.backends.cpu.get_cpu_capability()}"
        ),
        *_gpu(),
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


def _gpu() -> list[Finding]:
    """The GPUs, and whether the kernels of a small program are right on each kind of them."""
    if not torch.cuda.is_available():
        return [Finding("GPU", "none that PyTorch can use")]
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    kinds = {name: torch.device("cuda", names.index(name)) for name in names}
    return [Finding("GPU", ", ".join(names)), *(_kernels_on(device, name) for name, device in kinds.items())]


def _kernels_on(device: torch.device, name: str) -> Finding:
    what = f"kernels on {name}"
    lack = TRITON.missing()
    if lack is not None:
        return Finding(
            what, "none", False, f"PyTorch runs there, operation by operation: kernels need {lack}", needed=False
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = _tiny_program("auto", device)
        except RuntimeError as e:
            return Finding(what, "cannot be run", False, str(e))
    advice = "; ".join(text for warning in said if (text := str(warning.message)).startswith("columba"))
    if not advice and result != RIGHT:
        return Finding(what, f"wrong result {result}", False, "report this, with the versions of PyTorch and Triton")
    if advice:
        return Finding(what, "not used", False, advice, needed=False)
    return Finding(what, "run unchecked (COLUMBA_SELF_CHECK=0)" if mode() == "0" else "checked and run", True)


def _compiler() -> list[Finding]:
    """Whether there is a C++ compiler, and whether a compiled program gives the right result."""
    try:
        path = find_compiler()
    except CompilerNotFound as e:
        return [Finding("C++ compiler", "none", False, f"{e}")]
    found = Finding("C++ compiler", path, True)
    try:
        result = _tiny_program("cpp", torch.device("cpu"))
    except (BuildError, OSError) as e:
        return [found, Finding("kernels", "cannot be built", False, str(e))]
    right = result == RIGHT
    return [
        found,
        Finding(
            "kernels",
            "built and run" if right else f"wrong result {result}",
            right,
            "report this, with the compiler's version",
        ),
    ]


RIGHT = [[0.0], [3.0]]
"""The result of the tiny program."""


def _tiny_program(backend: str, device: torch.device) -> list[list[float]]:
    @columba.compile(backend=backend)
    def total(g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
        return g.edges.sum(g.edges.src(h))

    graph = columba.Graph(torch.tensor([[0, 0], [1, 1]]))
    values: list[list[float]] = total(graph.to(device), torch.tensor([[1.5], [0.0]], device=device)).tolist()
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
