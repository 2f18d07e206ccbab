"""Training in several processes: two, which exchange what they exchange by gloo, on the CPU, and share an empty cache."""

from __future__ import annotations

import functools
import shlex
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import columba
from columba.runtime.build import find_compiler
from tests.tools import distributed_jobs
from tests.tools.cases import REFUSED, case
from tests.tools.layers import G, X, assert_equal, model

SECTION = "Distributed"

COUNTING = """import hashlib, os, sys
from pathlib import Path
sources = [a for a in sys.argv[2:] if a.endswith(".cpp")]
with open(sys.argv[1], "a") as log:
    log.writelines(hashlib.sha256(Path(s).read_bytes()).hexdigest() + "\\n" for s in sources)
"""


@functools.cache
def _ran() -> dict[str, str]:
    """What both processes left of each job, and the hash of every source that was compiled."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        results, counting = folder / "results", folder / "count.py"
        results.mkdir()
        counting.write_text(COUNTING, encoding="utf-8")
        compiler = folder / "compiler.sh"
        count = shlex.join([sys.executable, str(counting), str(results / "compiled")])
        compiler.write_text(f'#!/bin/sh\n{count} "$@" && exec {find_compiler()} "$@"\n', encoding="utf-8")
        compiler.chmod(0o755)
        patch.setenv("CXX", str(compiler))
        patch.setenv("COLUMBA_CACHE_DIR", str(folder / "cache"))
        distributed_jobs.run(folder)
        return {path.name: path.read_text(encoding="utf-8") for path in results.iterdir()}


def _went_well(job: str) -> None:
    assert [_ran()[f"{job}{rank}"] for rank in range(distributed_jobs.RANKS)] == [""] * distributed_jobs.RANKS


@case(
    SECTION,
    "`DistributedDataParallel`",
    note="around a compiled model, or compiled itself; relations may be missing on a rank",
    slow=True,
)
def data_parallel() -> None:
    _went_well("data_parallel")


@case(
    SECTION,
    "`DistributedDataParallel`, `DataParallel` called inside a compiled function",
    REFUSED,
    message="DataParallel keeps account of every call, and a compiled function calls it once, when it is traced; compile the module "
    "that it wraps, or what that calls",
    note="A compiled model runs it in Python, and compiles what it wraps",
)
def wrappers_in_functions() -> None:
    wrapped = torch.nn.DataParallel(model())
    assert_equal(columba.compile(wrapped)(G, X), wrapped(G, X))
    columba.compile(lambda g, h: wrapped(g, h))(G, X)


@case(SECTION, "FSDP2: `torch.distributed.fsdp.fully_shard`", note="before or after the model is compiled", slow=True)
def fully_sharded() -> None:
    _went_well("fully_sharded")


@case(
    SECTION,
    "processes that start with an empty cache",
    note="each kernel library is built once on a machine",
    slow=True,
)
def builds_once() -> None:
    built = _ran()["compiled"].split()
    assert len(built) > 1
    assert len(built) == len(set(built))
