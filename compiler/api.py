"""The public verbs: compile, explain, inspect, tune."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from columba.calls.compiling import compile
from columba.inspection.explain import Explanation, explain, tunable
from columba.inspection.inspection import inspect
from columba.runtime.backends import BACKENDS, default_backend
from columba.runtime.graphs.graph import Graph
from columba.tuning.cases import case_of
from columba.tuning.records import Record, Records
from columba.tuning.search import BUDGET, Outcome, Step, TuningError, ignore, known_record, tune_variants

__all__ = ["Explanation", "backend_for", "compile", "explain", "inspect", "tune"]


def tune(
    model: Any,
    *args: Any,
    budget: float = BUDGET,
    target: str = "auto",
    graph: Graph | None = None,
    again: bool = False,
    report: Callable[[Step], None] | None = None,
    **kwargs: Any,
) -> Outcome | Record:
    """Measures candidates for a model's kernels on this machine, and records the winner, which ``columba.compile`` then uses by itself.

    What is tried: variants of the plan (compaction, the order of aggregation and products, reordering, recomputation), and the
    schedules of the kernels (tiles, prefetching, balancing, threads). A record holds for the model's structure, graphs of about this
    size, the dtype, the device and the versions of what makes the kernels. Interrupted, it goes on at the next call.

    Args:
        model: what to tune, as :func:`columba.compile` takes it: uncompiled, or compiled without ``passes``, ``recipe`` and
            ``memory_budget``.
        args, kwargs: the arguments of a call. Training is tuned if something among them or the parameters requires a gradient and
            gradients are enabled; under ``torch.no_grad()``, inference.
        budget: about how many seconds it may take.
        target: ``"cpp"``, ``"triton"``, or ``"auto"``: Triton for tensors on a GPU, else C++.
        graph: instead of the graph among the arguments, which then only says how the model is called.
        again: measures although there is a record.
        report: is called with every :class:`columba.tuning.search.Step`.

    Returns:
        The :class:`columba.tuning.search.Outcome`, or the record that was there already.

    Raises:
        TuningError: the model cannot be tuned, or not here.
        columba.tuning.records.RecordsError: the database cannot be used.
    """
    variants, given, options = tunable(model, *args, **kwargs)
    graph = given if graph is None else graph
    if graph.is_square != given.is_square:
        raise TuningError("a model of square graphs cannot be tuned on a bipartite one, nor the other way round")
    if not options.is_open:
        raise TuningError("the model is compiled with passes, a recipe or a memory budget, which leave nothing to tune")
    if not budget > 0:
        raise ValueError(f"budget must be a positive number of seconds, got {budget}")
    backend = backend_for(target, options.backend, graph.device)
    if not again:
        case = case_of(variants.program, variants.wrt, graph.counts(), graph.device, backend)
        known = known_record(case, Records())
        if known is not None and known.complete:
            return known
    return tune_variants(variants, graph, backend, budget, report or ignore, again=again)


def backend_for(target: str, compiled_for: str, device: torch.device) -> str:
    """The backend that is tuned."""
    if target != "auto" and target not in BACKENDS:
        raise ValueError(f"unknown target {target!r}; one of auto, {', '.join(BACKENDS)}")
    wanted = compiled_for if target == "auto" else target
    if wanted == "auto":
        return default_backend(device).name
    if wanted not in BACKENDS:
        raise TuningError(f"backend={wanted!r} runs PyTorch's operations, which have nothing to tune")
    obstacle = BACKENDS[wanted].untimed(device)
    if obstacle is not None:
        raise TuningError(obstacle)
    return wanted
