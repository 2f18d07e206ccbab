"""Calls under function transforms and modes, and what kernels have no rule for: second derivatives, forward mode.

:class:`Forward` and :class:`Gradient` are the two directions of a program on a graph as functions that PyTorch's transforms know how to
handle: kernels run at the bottom, on plain tensors; under ``vmap`` they run once for each element of the batch. The derivative of the
backward direction, and forward-mode derivatives of either, are those of the traced program evaluated by PyTorch's operators
(:mod:`columba.runtime.reference`), which have derivatives of all orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from columba.ir.counts import Counts
from columba.ir.spaces import Space
from columba.ir.types import TensorType
from columba.runtime import autocast, operators
from columba.runtime.dtypes import torch_dtype
from columba.runtime.operators import CompiledProgram
from columba.runtime.reference import evaluate
from columba.runtime.structure import Structure
from columba.runtime.warn import warn_once


class OnGraph(Protocol):
    """What is asked of a program on a graph: of a ``ProgramOnGraph`` of :mod:`columba.runtime.fast_path`."""

    program: CompiledProgram
    structure: Structure | None
    index: Sequence[Tensor]
    counts: list[int]
    inputs_kept: tuple[int, ...]

    @property
    def pair(self) -> Any: ...

    def range(self, direction: str) -> AbstractContextManager[Any]: ...

    def run_forward(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]: ...

    def run_backward(
        self, inputs: Sequence[Tensor | None], values: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> Sequence[Tensor]: ...


def run(on_graph: OnGraph, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The results of a call that a mode, a transform or a subclass of tensors looks at."""
    kinds = _transforms()
    is_functional = torch._C._functorch.TransformType.Functionalize in kinds  # which knows no autograd.Function
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or (is_functional and len(kinds) == 1)
    ):
        program = on_graph.program
        return operators.forward(program.key, list(inputs), list(on_graph.index), on_graph.counts)[: program.results]
    if _in_forward_mode(kinds, inputs):
        return _without_kernels(on_graph, inputs, "forward-mode derivatives")
    if is_functional:
        return _without_kernels(on_graph, inputs, "other transforms around functionalize")
    gradients = on_graph.program.gradients or (None,) * len(inputs)
    are_recorded = torch.is_grad_enabled() or torch._C._functorch.TransformType.Grad in kinds
    if are_recorded and any(g is None and wants_gradient(x) for x, g in zip(inputs, gradients, strict=True)):
        return _without_kernels(on_graph, inputs, "gradients that only an outer transform wants")
    return Forward.apply(on_graph, *inputs)[: on_graph.program.results]  # type: ignore[no-any-return, no-untyped-call]


def wants_gradient(x: Tensor) -> bool:
    """Whether any level of function transforms wants the gradient of a tensor, or autograd below them."""
    while not x.requires_grad:
        if not torch._C._functorch.is_functorch_wrapped_tensor(x):
            return False
        x = torch._C._functorch.get_unwrapped(x)
    return True


def _transforms() -> list[Any]:
    """The kinds of the function transforms that are active, the outermost first."""
    if torch._C._functorch.peek_interpreter_stack() is None:
        return []
    return [interpreter.key() for interpreter in torch._C._functorch.get_interpreter_stack() or ()]


def _in_forward_mode(kinds: Sequence[Any], tensors: Sequence[Tensor | None]) -> bool:
    """Whether forward-mode derivatives are wanted."""
    if torch._C._functorch.TransformType.Jvp in kinds:
        return True
    if forward_ad._current_level < 0:
        return False
    return bool(kinds) or any(
        x is not None and x.is_floating_point() and forward_ad.unpack_dual(x).tangent is not None for x in tensors
    )


# ------------------------------------------------------------------------------------------------ by PyTorch's operators


def _without_kernels(on_graph: OnGraph, inputs: Sequence[Tensor], what: str) -> list[Tensor]:
    _say(on_graph, what)
    return [x.clone() for x in reference(on_graph, inputs)]  # what is an input, or a view of one, is the caller's own


def _say(on_graph: OnGraph, what: str) -> None:
    warn_once(
        f"columba: there are no kernels for {what} of {on_graph.program.name}: PyTorch's operators compute them, which is slower and takes "
        "more memory"
    )


def reference(on_graph: OnGraph, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What the forward kernels return as results, by PyTorch's operators."""
    program = on_graph.program
    if program.traced is None or on_graph.structure is None:
        raise RuntimeError(
            f"columba: nothing but the kernels of {program.name} is known, which have no further derivatives"
        )
    with autocast.disabled():
        results = evaluate(program.traced, inputs, on_graph.structure)
    return [results[n] for n in program.returned]


def reference_gradients(
    on_graph: OnGraph, inputs: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> list[Tensor]:
    """The gradients of the inputs that have one, by PyTorch's operators. An input may be None where no gradient depends on it."""
    program, structure = on_graph.program, on_graph.structure
    assert program.traced is not None
    assert structure is not None
    values = [
        torch.zeros(_shape(i.type, structure), dtype=torch_dtype(i.dtype), device=structure.device) if x is None else x
        for x, i in zip(inputs, program.traced.inputs, strict=True)
    ]
    wanted, used = _present(program.gradients), _present(grads)

    def results(*changed: Tensor) -> tuple[Tensor, ...]:
        given = list(values)
        for n, x in zip(wanted, changed, strict=True):
            given[n] = x
        found = reference(on_graph, given)
        return tuple(found[n] for n in used)

    pull = torch.func.vjp(results, *(values[n] for n in wanted))[1]
    return list(pull(tuple(grads[n] for n in used)))


def _shape(type: TensorType, structure: Structure) -> tuple[int, ...]:
    return type.shape if type.space is Space.ONE else (structure.count(type.space), *type.shape)


def _present(values: Sequence[Any]) -> list[int]:
    """The positions of what is not None."""
    return [n for n, value in enumerate(values) if value is not None]


# ------------------------------------------------------------------------------------------------ by kernels


def gradients(
    on_graph: OnGraph,
    inputs: Sequence[Tensor | None],
    values: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    in_batch: bool = False,
) -> list[Tensor | None]:
    """The gradient of each input that has one, differentiable in its turn.

    Args:
        on_graph: the program.
        inputs: its inputs; None for those on which no gradient depends.
        values: what the backward direction reads of what the forward one returned.
        grads: the gradients of the results; None where nothing depends on a result.
        in_batch: ``torch.autograd.grad`` was given several of them (``is_grads_batched``), which only PyTorch's operators understand.
    """
    program = on_graph.program
    grads = list(grads)
    device = next(g.device for g in grads if g is not None)
    for n in on_graph.pair.grads:
        if grads[n] is None:
            t = program.forward.outputs[n]
            grads[n] = torch.zeros(Counts(on_graph.counts).shape(t), dtype=torch_dtype(t.dtype), device=device)
    if _in_forward_mode(_transforms(), (*inputs, *grads)):
        _say(on_graph, "forward-mode derivatives")
        found = reference_gradients(on_graph, inputs, grads)
    elif in_batch:
        _say(on_graph, "gradients in a batch")
        found = reference_gradients(on_graph, inputs, grads)
    else:
        found = Gradient.apply(on_graph, *inputs, *values, *grads)  # type: ignore[no-untyped-call]
    by_input: list[Tensor | None] = [None] * len(program.gradients)
    for n, gradient in zip(_present(program.gradients), found, strict=True):
        by_input[n] = gradient
    return by_input


class Forward(torch.autograd.Function):
    """A program on a graph: its inputs to its results, and then what its gradient needs, of which nobody takes a gradient."""

    @staticmethod
    def forward(on_graph: OnGraph, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(on_graph.run_forward(inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        on_graph, *tensors = inputs
        ctx.on_graph = on_graph
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[on_graph.program.results :])
        ctx.save_for_backward(*(tensors[n] for n in on_graph.inputs_kept), *(output[n] for n in on_graph.pair.results))

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        on_graph: OnGraph = ctx.on_graph
        program = on_graph.program
        kept, grads = ctx.saved_tensors, given[: program.results]
        if all(g is None for g in grads):
            return (None,) * (1 + len(program.gradients))
        inputs: list[Tensor | None] = [None] * len(program.gradients)
        for n, x in zip(on_graph.inputs_kept, kept, strict=False):
            inputs[n] = x
        return None, *gradients(on_graph, inputs, kept[len(on_graph.inputs_kept) :], grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], on_graph: OnGraph, *inputs: Tensor) -> Any:
        types = on_graph.program.forward.outputs
        return _one_by_one(Forward.apply, info.batch_size, in_dims[1:], on_graph, inputs, types)


class Gradient(torch.autograd.Function):
    """The gradients of a program's inputs, where they have one, as a function of its inputs and of the gradients of its results.

    It takes what :func:`gradients` does, one after the other. What the forward direction saved is a function of the inputs, and is not
    differentiated by itself.
    """

    @staticmethod
    def forward(on_graph: OnGraph, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        inputs, values, grads = _split(on_graph, tensors)
        return tuple(on_graph.run_backward(inputs, values, grads))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        on_graph, *tensors = inputs
        ctx.on_graph = on_graph
        given, values, grads = _split(on_graph, tensors)
        ctx.values = len(values)
        ctx.save_for_backward(*given, *grads)

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor) -> tuple[Tensor | None, ...]:
        on_graph: OnGraph = ctx.on_graph
        _say(on_graph, "second derivatives")
        count = len(on_graph.program.gradients)
        inputs, grads = list(ctx.saved_tensors[:count]), list(ctx.saved_tensors[count:])
        changed = [n for n, g in enumerate(on_graph.program.gradients) if g is not None and inputs[n] is not None]
        used = _present(grads)

        def first(changed_inputs: tuple[Tensor, ...], changed_grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(
                reference_gradients(on_graph, _with(inputs, changed, changed_inputs), _with(grads, used, changed_grads))
            )

        pull = torch.func.vjp(first, tuple(inputs[n] for n in changed), tuple(grads[n] for n in used))[1]
        of_inputs, of_grads = pull(tuple(seconds))
        none = [None] * len(inputs), [None] * len(grads)
        return None, *_with(none[0], changed, of_inputs), *[None] * ctx.values, *_with(none[1], used, of_grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], on_graph: OnGraph, *tensors: Tensor | None) -> Any:
        traced, wanted = on_graph.program.traced, _present(on_graph.program.gradients)
        types = () if traced is None else tuple(traced.inputs[n].type for n in wanted)
        return _one_by_one(Gradient.apply, info.batch_size, in_dims[1:], on_graph, tensors, types)


def _with(values: Sequence[Tensor | None], at: Sequence[int], changed: Sequence[Tensor]) -> list[Tensor | None]:
    result = list(values)
    for n, x in zip(at, changed, strict=True):
        result[n] = x
    return result


def _split(
    on_graph: OnGraph, tensors: Sequence[Tensor | None]
) -> tuple[Sequence[Tensor | None], Sequence[Tensor], Sequence[Tensor | None]]:
    """Inputs, values and gradients, of what :class:`Gradient` takes."""
    inputs, results = len(on_graph.program.gradients), on_graph.program.results
    return tensors[:inputs], tensors[inputs:-results], tensors[-results:]  # type: ignore[return-value]


def _one_by_one(
    apply: Callable[..., Any],
    batch: int,
    in_dims: Sequence[int | None],
    on_graph: OnGraph,
    tensors: Sequence[Tensor | None],
    types: Sequence[TensorType],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The results of a function for each element of a batch, stacked. ``types`` are those of the results: a batch may be empty."""

    def element(b: int) -> list[Tensor | None]:
        return [x if x is None or d is None else x.select(d, b) for x, d in zip(tensors, in_dims, strict=True)]

    found = [apply(on_graph, *element(b)) for b in range(batch)]
    if found:
        stacked = tuple(map(torch.stack, zip(*found, strict=True)))
    else:
        structure = on_graph.structure
        assert structure is not None
        stacked = tuple(
            torch.empty((0, *_shape(t, structure)), dtype=torch_dtype(t.dtype), device=structure.device) for t in types
        )
    return stacked, (0,) * len(stacked)
