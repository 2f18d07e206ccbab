"""Jobs for the self-check in Triton's interpreter, and the faults that tests plant in the source of their kernels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from compiled import PAIRS
from interpreter_rounding import round_as_gpus_do
from torch import Tensor

import columba
from columba.ir.types import DType
from columba.runtime.self_check.graphs import SMALL, Sample
from columba.runtime.self_check.job import Job
from columba.runtime.triton.launch import TritonExecutable

round_as_gpus_do()

TINY = Sample("a tiny graph", nodes=24, edges=60, hub=12, relations=5)
"""Two seconds a training step in the interpreter, where the graphs of the product take half a minute."""

CPU = torch.device("cpu")


def job_of(model: Any, *args: Any, samples: Sequence[Sample] = SMALL, grad: bool = True) -> Job:
    """What checks a model's kernels in the interpreter."""
    with torch.set_grad_enabled(grad):
        planned = columba.explain(columba.compile(model, passes=PAIRS), *args).compilation.planned
    source = TritonExecutable(planned.plans, DType.I32, schedules=planned.schedules).source
    return replace(Job.of(planned, source, DType.I32, CPU, "Triton's interpreter", "ieee"), samples=tuple(samples))


def messages(g: columba.Graph, x: Tensor, w: Tensor) -> Tensor:
    """A product with a weight of each relation, and a sum."""
    return g.edges.sum(torch.relu(columba.linear(g.edges.src(x), g.edges.rel(w))))


def arguments() -> tuple[columba.Graph, Tensor, Tensor]:
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    return graph, torch.randn(2, 8, requires_grad=True), torch.randn(2, 8, 4, requires_grad=True)


@functools.cache
def small_job() -> Job:
    """Two kernels on a tiny graph: a product, a sum."""
    return job_of(messages, *arguments(), samples=[TINY], grad=False)


FAULTS: dict[str, tuple[str, str]] = {
    "adds a member twice": (
        "        total += pointwise_4_src_rel\n",
        "        total += pointwise_4_src_rel + tl.where(position == begin, pointwise_4_src_rel, 0)\n",
    ),
    "skips the last tile": (
        "    valid = position < end\n",
        "    valid = position < tl.where(tile < n_tiles - 1, end, begin)\n",
    ),
    "reads out of bounds": (
        "        present = position < end_2\n",
        "        present = (position < end_2) | ((position == end_2) & (owner == n_node - 1))\n",
    ),
    "writes out of bounds": ("total, mask=stored)", "total, mask=owner < n_node + 1)"),
    "hangs": ("    total = sum_along", "    time.sleep(1000)\n    total = sum_along"),
    "ends the process": ("    total = sum_along", "    os.abort()\n    total = sum_along"),
}
"""Text of the kernels of :func:`small_job`, and what takes its place where it is first: not in what takes hubs."""


def planted(fault: str) -> Job:
    """The small job with a fault in one of its kernels."""
    job, (text, wrong) = small_job(), FAULTS[fault]
    assert text in job.source, job.source
    return replace(job, source="import os, time\n" + job.source.replace(text, wrong, 1))
