"""The public verbs: compile, explain, inspect, tune."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, overload

import torch

from columba.calls.options import Options, check_dynamic, settings_of
from columba.calls.specialize import F, M, compiled, uncompiled
from columba.inspection.explain import Explanation, explain, tunable
from columba.inspection.inspection import inspect
from columba.passes.recipes import Recipe
from columba.runtime.backends import CHOICES, Backend, choice_named
from columba.runtime.config import config
from columba.runtime.graphs.graph import Graph
from columba.tuning.cases import case_of
from columba.tuning.records import Records, TuningRecord
from columba.tuning.search import BUDGET, Outcome, Step, TuningError, ignore, known_record, tune_variants

__all__ = ["Explanation", "backend_for", "compile", "explain", "inspect", "tune"]


@overload
def compile(
    target: M,
    *,
    backend: str = ...,
    passes: str = ...,
    memory_budget: int | None = ...,
    recipe: Recipe | None = ...,
    autotune: bool = ...,
    fp32_precision: str | None = ...,
    cuda_graphs: bool = ...,
    fullgraph: bool | None = ...,
    strict: bool = ...,
    disable: bool = ...,
    dynamic: bool | None = ...,
    mode: str | None = ...,
) -> M: ...
@overload
def compile(
    target: F,
    *,
    backend: str = ...,
    passes: str = ...,
    memory_budget: int | None = ...,
    recipe: Recipe | None = ...,
    autotune: bool = ...,
    fp32_precision: str | None = ...,
    cuda_graphs: bool = ...,
    fullgraph: bool | None = ...,
    strict: bool = ...,
    disable: bool = ...,
    dynamic: bool | None = ...,
    mode: str | None = ...,
) -> F: ...
@overload
def compile(
    target: None = ...,
    *,
    backend: str = ...,
    passes: str = ...,
    memory_budget: int | None = ...,
    recipe: Recipe | None = ...,
    autotune: bool = ...,
    fp32_precision: str | None = ...,
    cuda_graphs: bool = ...,
    fullgraph: bool | None = ...,
    strict: bool = ...,
    disable: bool = ...,
    dynamic: bool | None = ...,
    mode: str | None = ...,
) -> Callable[[F], F]: ...


def compile(
    target: Any = None,
    *,
    backend: str = "auto",
    passes: str = "",
    memory_budget: int | None = None,
    recipe: Recipe | None = None,
    autotune: bool = False,
    fp32_precision: str | None = None,
    cuda_graphs: bool = False,
    fullgraph: bool | None = None,
    strict: bool = False,
    disable: bool = False,
    dynamic: bool | None = None,
    mode: str | None = None,
) -> Any:
    """Compiles a function, a method, a module class, or a module, written in Columba's language.

    Args:
        target: what to compile. A function or ``forward`` method (as a decorator) takes a :class:`columba.Graph` (or the tensors that
            a shipped layer builds one from) beside tensors. A module *class* gets a compiled ``forward``. A module *instance* is
            returned as a compiled module that shares parameters, buffers and submodules with the original: same ``state_dict``,
            same ``train()``/``eval()`` state; the original stays as it is. Left out, the call returns a decorator.
        backend: ``"cpp"``: generated C++ kernels, for tensors on the CPU. ``"triton"``: generated Triton kernels, for tensors on a GPU (on
            the CPU they run in Triton's interpreter, for debugging). ``"torch"``: the traced program run by PyTorch, operation by
            operation. ``"auto"``: ``cpp`` on CPU tensors, ``triton`` on those of a CUDA or ROCm device; where these cannot run (no C++
            compiler, no Triton, a dtype or a device without kernels) ``torch``, with a warning that says why. Triton kernels are
            checked once on every kind of GPU, in a process of their own, before they are used: see ``docs/gpu.md``.
        passes: passes to force and to forbid, as in ``"aggregate_first,-reorder_linear"``. What is left open is chosen by the cost model,
            for each graph: whether to aggregate before the products, and whether to compute once for each (node, relation) pair.
        memory_budget: the most bytes that the forward pass may save for the backward one beside inputs and results; what does not fit is
            computed again. None: whatever is fastest.
        recipe: instead of ``passes``, all passes in order (:class:`columba.passes.recipes.Recipe`).
        fp32_precision: how products of float32 are computed on a GPU, in the words of PyTorch's settings of that name: ``"ieee"``: as they
            are, which NVIDIA's tensor cores cannot; ``"tf32"``: operands are rounded to 10 bits of mantissa; ``"tf32x3"``: as three such
            products, which err by 2^-21 or so of what is multiplied, and run on tensor cores (AMD's matrix units take float32 as it is:
            there it is ``"ieee"``). None: as ``torch.backends.cuda.matmul.fp32_precision`` says at the call. On a CPU products are IEEE's.
        cuda_graphs: on a GPU, a call on a graph that was called with twice before replays a CUDA graph: one launch instead of some dozens,
            for graphs so small that launches take longer than kernels. Inputs that move are copied, and results are; memory of
            temporaries is kept for each graph. On a CPU it changes nothing.
        autotune: where no tuning record exists for a program and graphs of this size, candidates are measured at the first call, for about
            half a minute, and the winner is recorded (see :func:`columba.tune`).

        fullgraph: what becomes of a target that cannot be traced as one program. True: it is an error. False: it runs in Python, and the
            modules that it calls are compiled by themselves, by the same rule: *regions*, with PyTorch between them. One message
            (logger ``columba.regions``, ``INFO``) says which and why. None: False for modules and module classes, True for
            functions and methods.
        strict: whether it is an error that a layer of PyTorch Geometric's (a ``MessagePassing`` module) in the target runs in PyTorch. If
            not, a warning of the logger ``columba.regions`` says so, once for each class. What is no such layer may break.
        disable: gives the target back as it is. So does the environment variable ``COLUMBA_DISABLE=1``.
        dynamic: None or True; here numbers of rows are always dynamic, and feature shapes never are.
        mode: ``"max-autotune"`` is ``autotune=True``, ``"reduce-overhead"`` is ``cuda_graphs=True``; ``"default"``, or None, neither.

    ``fullgraph``, ``disable``, ``dynamic`` and ``mode`` are those of ``torch.compile``. The stance of ``torch.compiler.set_stance`` counts:
    ``"force_eager"`` runs everything as it is, ``"eager_on_recompile"`` what is not traced yet; that is an error for
    ``"fail_on_recompile"``. What ``torch.compiler.disable`` marks runs as it is, outside of programs.

    What was tuned before on this machine (``columba tune``) is used, in place of the cost model's choice, unless ``passes``, a
    ``recipe`` or a ``memory_budget`` is given.

    The target is traced on its first call, and again when something that the trace depended on has changed: feature shapes, dtypes,
    training mode, attributes that were read. New graphs do not retrace. See ``docs/language.md`` for what can be traced.

    Raises:
        columba.TraceError: at the first call, where a function, or anything with ``fullgraph=True``, does something that cannot be
            compiled; names the line.
        ValueError: an option has a value that it cannot have, or contradicts another one.

    >>> import torch, columba
    >>> @columba.compile
    ... def neighbour_sum(g, h):
    ...     return g.edges.sum(g.edges.src(h))
    >>> g = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 2]]))
    >>> neighbour_sum(g, torch.tensor([[1.0], [2.0], [4.0]])).tolist()
    [[0.0], [1.0], [6.0]]
    """
    check_dynamic(dynamic)
    autotune, cuda_graphs = settings_of(mode, autotune, cuda_graphs)
    options = Options(backend, passes, memory_budget, recipe, autotune, fp32_precision, cuda_graphs, fullgraph, strict)
    make = uncompiled if disable or config.disable else functools.partial(compiled, options=options)
    return make if target is None else make(target)


def tune(
    model: Any,
    *args: Any,
    budget: float = BUDGET,
    target: str = "auto",
    graph: Graph | None = None,
    again: bool = False,
    report: Callable[[Step], None] | None = None,
    **kwargs: Any,
) -> Outcome | TuningRecord | tuple[Outcome | TuningRecord, ...]:
    """Measures candidates for a model's kernels on this machine, and records the winner, which ``columba.compile`` then uses by itself.

    What is tried: variants of the plan (compaction, the order of aggregation and products, reordering, recomputation), and the
    schedules of the kernels (tiles, prefetching, balancing, threads). A record holds for the model's structure, graphs of about this
    size, the dtype, the device and the versions of what makes the kernels. Interrupted, it goes on at the next call.

    Args:
        model: what to tune, as :func:`columba.compile` takes it: uncompiled, or compiled without ``passes``, ``recipe`` and
            ``memory_budget``.
        args, kwargs: the arguments of a call. Training is tuned if something among them or the parameters requires a gradient and
            gradients are enabled; under ``torch.no_grad()``, inference.
        budget: about how many seconds it may take, all programs together.
        target: ``"cpp"``, ``"triton"``, or ``"auto"``: Triton for tensors on a GPU, else C++.
        graph: instead of the only graph among the arguments, which then only says how the model is called.
        again: measures although there is a record.
        report: is called with every :class:`columba.tuning.search.Step`.

    Returns:
        The :class:`columba.tuning.search.Outcome`, or the record that was there already. Of a model that is compiled as several programs, a
        tuple with one of these for each.

    Raises:
        TuningError: the model cannot be tuned, or not here.
        columba.tuning.records.RecordsError: the database cannot be used.
    """
    programs, options = tunable(model, *args, **kwargs)
    if not options.is_open:
        raise TuningError("the model is compiled with passes, a recipe or a memory budget, which leave nothing to tune")
    if not budget > 0:
        raise ValueError(f"budget must be a positive number of seconds, got {budget}")
    if graph is not None:
        if len(programs) > 1:
            raise TuningError(f"graph= stands for one graph, and the model is compiled as {len(programs)} programs")
        if graph.is_square != programs[0][1].is_square:
            raise TuningError("a model of square graphs cannot be tuned on a bipartite one, nor the other way round")
        programs = [(programs[0][0], graph)]
    found: list[Outcome | TuningRecord] = []
    for variants, of in programs:
        backend = backend_for(target, options.backend, of.device).name
        case = case_of(variants.program, variants.wrt, of.counts(), of.device, backend)
        known = None if again else known_record(case, Records())
        if known is not None and known.complete:
            found.append(known)
            continue
        share = budget / len(programs)
        found.append(tune_variants(variants, of, backend, share, report or ignore, again=again))
    return found[0] if len(found) == 1 else tuple(found)


def backend_for(target: str, compiled_for: str, device: torch.device) -> Backend:
    """The backend that is tuned: ``target``; where that is ``"auto"``, the one that the model is compiled for; else the device's."""
    if target not in CHOICES:
        raise ValueError(f"unknown target {target!r}; one of {', '.join(CHOICES)}")
    wanted = choice_named(target)
    if wanted.falls_back:
        wanted = choice_named(compiled_for)
    backend = wanted.backend(device)
    if backend is None:
        raise TuningError(f"backend={wanted.name!r} runs PyTorch's operations, which have nothing to tune")
    obstacle = backend.untimed(device)
    if obstacle is not None:
        raise TuningError(obstacle)
    return backend
