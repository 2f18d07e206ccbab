"""Verdicts on kernels, which outlive a process: looked up, or found out by a check.

``COLUMBA_SELF_CHECK=1``, the default, checks the kernels of a program once, when they are first used on a kind of GPU, and keeps the
verdict in the cache folder; ``force`` checks them again, once in each process; ``0`` checks nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from columba.codegen.triton import Module
from columba.ir.plan.planned import Planned
from columba.ir.types import DType
from columba.runtime import cache
from columba.runtime.config import config
from columba.runtime.escape import plain
from columba.runtime.fingerprint import fingerprint
from columba.runtime.logs import logger
from columba.runtime.self_check.job import Job, Verdict
from columba.runtime.self_check.process import CouldNotCheck, check
from columba.runtime.triton.functions import settled_precision, version

log = logger("self_check")

WAIT = 3600.0
"""Seconds that a process waits for another one that checks the same kernels: it may compile some hundred."""


def mode() -> str:
    """``columba.config.self_check``; ValueError where ``$COLUMBA_SELF_CHECK`` is none of :data:`SELF_CHECKS`."""
    given: str = config.self_check
    return given


@dataclass(frozen=True)
class Subject:
    """The kernels of a program, for a device."""

    planned: Planned
    module: Module
    index_dtype: DType
    device: torch.device

    @functools.cached_property
    def gpu(self) -> str:
        """The name of the device."""
        return device_name(self.device)

    def key(self, precision: str) -> str:
        """The name of the entry in the cache: everything that the verdict depends on."""
        steps = repr([(name, [(s.launches, s.rounded) for s in steps]) for name, steps in self.module.steps.items()])
        identity = [
            fingerprint(),
            _sources(),
            self.module.source,
            steps,
            *self.planned.plan_texts,
            repr(self.planned.sources),
            str(self.index_dtype),
            self.gpu,
            *map(str, versions(self.device)),
            precision,
        ]
        return "check-" + hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]

    @property
    def precision(self) -> str:
        """Of products of float32, as they would be compiled now."""
        found = {x.dot for steps in self.module.steps.values() for s in steps for x in s.launches}
        return settled_precision(self.planned.precision) if DType.F32 in found else "ieee"

    def job(self, precision: str) -> Job:
        return Job.of(self.planned, self.module.source, self.index_dtype, self.device, self.gpu, precision)


def objection(subject: Subject) -> str | None:
    """Why kernels should not run, to follow "the Triton kernels of NAME" in a sentence; None if they may.

    Raises:
        ValueError: COLUMBA_SELF_CHECK or COLUMBA_SELF_CHECK_TIMEOUT is set to nonsense.
    """
    wanted = mode()
    if wanted == "0":
        return None
    with _lock:
        try:
            verdict = _verdict(subject, again=wanted == "force")
        except CouldNotCheck as e:
            return f"could not be checked on {subject.gpu} ({e}; COLUMBA_SELF_CHECK=0 runs them unchecked)"
    if verdict.passed:
        return None
    return f"{_fault(subject, verdict)} (please report this; COLUMBA_SELF_CHECK=force checks them again)"


def standing(subject: Subject) -> str:
    """What is known of kernels, to follow a comma; nothing is checked."""
    if mode() == "0":
        return "unchecked (COLUMBA_SELF_CHECK=0)"
    key = subject.key(subject.precision)
    found = _known.get(key)
    if found is None:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            found = Verdict.from_json(cache.find(key, ".json") or b"")
    if isinstance(found, Verdict):
        return f"checked on {subject.gpu}" if found.passed else f"which {_fault(subject, found)}"
    return f"which are checked on {subject.gpu} at the first call"


def _fault(subject: Subject, verdict: Verdict) -> str:
    return f"fail their check on {subject.gpu}: {verdict.kernel}: {verdict.why}"


_lock = threading.RLock()

_known: dict[str, Verdict | CouldNotCheck] = {}
"""What was looked up or found out in this process."""


def _verdict(subject: Subject, *, again: bool) -> Verdict:
    precision = subject.precision
    key = subject.key(precision)
    known = _known.get(key)
    if known is None:
        try:
            known = _checked_now(subject, key, precision) if again else _kept(subject, key, precision)
        except CouldNotCheck as e:
            known = e
        _known[key] = known
    if isinstance(known, CouldNotCheck):
        raise known
    return known


def _kept(subject: Subject, key: str, precision: str) -> Verdict:
    """The verdict in the cache, which is found out if there is none."""

    def make() -> bytes:
        return _check(subject, precision).to_json().encode()

    for _ in range(2):
        content = cache.get_or_make(key, ".json", make, WAIT)
        try:
            return Verdict.from_json(content)
        except (ValueError, TypeError, RecursionError):  # of a broken process
            cache.remove(key, ".json")
    return _check(subject, precision)


def _checked_now(subject: Subject, key: str, precision: str) -> Verdict:
    """The verdict of a check that is made now, and kept."""
    verdict = _check(subject, precision)
    cache.replace(key, ".json", verdict.to_json().encode())
    return verdict


def _check(subject: Subject, precision: str) -> Verdict:
    with _shown(f"checking {subject.planned.name}'s kernels on {subject.gpu} (once)"):
        return check(subject.job(precision))


@contextlib.contextmanager
def _shown(what: str) -> Iterator[None]:
    """Says on a terminal what is under way, as long as it is; else logs it."""
    log.info("%s", plain(what))
    if not sys.stderr or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(f"{plain(what)}…")):
        yield


# ------------------------------------------------------------------------------------------------ what a verdict depends on


def device_name(device: torch.device) -> str:
    """Of a GPU, as PyTorch has it."""
    return "Triton's interpreter" if device.type == "cpu" else torch.cuda.get_device_name(device)


def versions(device: torch.device) -> tuple[str, ...]:
    """Of what compiles and runs kernels on a device: its architecture, the driver, PyTorch and Triton."""
    found = [torch.__version__, str(version())]
    if device.type == "cpu":
        return tuple(found)
    properties = torch.cuda.get_device_properties(device)
    architecture = str(getattr(properties, "gcnArchName", (properties.major, properties.minor)))
    return (*found, architecture, str(torch.version.cuda or torch.version.hip), driver_version())


def driver_version() -> str:
    """The version of the kernel's driver, as far as it is said somewhere."""
    for path in (Path("/proc/driver/nvidia/version"), Path("/sys/module/amdgpu/version")):
        with contextlib.suppress(OSError):
            return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return str(getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")())


@functools.cache
def _sources() -> str:
    """The hash of the source of what runs Triton kernels and of what checks them."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for folder in (here, here.parent / "triton"):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
