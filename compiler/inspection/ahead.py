"""What a model's calls would launch on GPUs that need not be there: all of it, whatever the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from columba.codegen.triton import emit
from columba.inspection.explain import precision_for, variants_for
from columba.runtime.dtypes import ir_dtype
from columba.runtime.triton.precompile import Job, jobs_of


def jobs_for(
    model: Any,
    args: Sequence[Any],
    targets: Sequence[str],
    precisions: Sequence[str] = ("ieee",),
    *,
    training: bool = True,
) -> list[Job]:
    """Every kernel that a call ``model(*args)`` may launch on one of the architectures, each once.

    These are the kernels of all variants among which graphs choose, in all variants of each launch; with ``training``, those of calls
    with gradients beside those of calls without. ``precisions`` are those of products of float32, where ``columba.compile`` was given none.

    Raises:
        columba.runtime.triton.aot.UnknownTarget: there is no such architecture.
        columba.runtime.triton.functions.TritonNotFound: Triton is not installed, or too old.
    """
    found: dict[Job, None] = {}
    asked = precision_for(model)
    for grad in (False, True) if training else (False,):
        with torch.set_grad_enabled(grad):
            variants, graph = variants_for(model, *args)
            for name in variants.names():
                planned = variants.planned(name)
                module = emit(planned.plans, planned.schedules)
                found |= dict.fromkeys(
                    jobs_of(module, ir_dtype(graph.index_dtype), targets, precisions if asked is None else (asked,))
                )
    return list(found)
