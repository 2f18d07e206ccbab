"""Keys of tuning records: the program, the kind of graph, the device, and the versions of what made the kernels."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence

import torch

from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.passes.recipes import LEVEL_1, LEVEL_2
from columba.runtime.build import cpu
from columba.tuning.records import FORMAT, Case


def case_of(
    program: Program, wrt: Sequence[str], counts: Mapping[Space, int], device: torch.device, backend: str
) -> Case:
    """The case of a program on a graph with these counts."""
    kinds = dict.fromkeys(str(r.dtype) for r in program.results)
    return Case(
        program.name,
        program_hash(program),
        ",".join(wrt),
        bucket(counts),
        ",".join(kinds),
        device_name(device),
        backend,
    )


def program_hash(program: Program) -> str:
    """The hash of a program's text, which is the same in every process."""
    return hashlib.sha256(str(program).encode()).hexdigest()[:32]


def bucket(counts: Mapping[Space, int]) -> str:
    """The sizes of a graph's spaces to powers of two: graphs in the same bucket share their records. Of a batch there are several graphs.

    >>> bucket({Space.NODE: 1000, Space.EDGE: 5000, Space.REL: 0})
    'node<2^10 edge<2^13 rel<2^0'
    """
    spaces = (s for s in counts if s is not Space.ONE and not (s is Space.GRAPH and counts[s] == 1))
    return " ".join(f"{space}<2^{counts[space].bit_length()}" for space in spaces)


@functools.cache
def _processor(threads: int) -> str:
    first = cpu().splitlines()[0]
    name = first.split(":", 1)[-1].strip() or "CPU"
    return f"{name}, {threads} threads, {hashlib.sha256(cpu().encode()).hexdigest()[:8]}"


def device_name(device: torch.device) -> str:
    """What the kernels run on: the processor, with what it can do and how many threads use it, or the GPU."""
    if device.type == "cpu":
        return _processor(torch.get_num_threads())
    return torch.cuda.get_device_name(device)


@functools.cache
def versions() -> str:
    """What a measurement depends on beside the case: kernels of another version are other kernels."""
    recipe = hashlib.sha256(f"{LEVEL_1}\n{LEVEL_2}".encode()).hexdigest()[:8]
    return (
        f"columba {importlib.metadata.version('columba')}, recipe {recipe}, torch {torch.__version__}, format {FORMAT}"
    )
