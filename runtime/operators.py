"""Compiled programs as PyTorch operators.

Two operators serve all programs: ``columba::forward`` and ``columba::backward``. They take the key of a program that is registered
in this process, its input tensors, the index arrays of the graph, and the row counts of its spaces; everything that varies from
call to call is thus an argument, and shapes may be symbolic. Both have fake implementations; the first has the second as its
gradient, and the second has none: second derivatives are those of :mod:`columba.runtime.transforms`, which needs the graph.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from columba.ir.counts import Counts
from columba.ir.program.dependence import gradient_dependences
from columba.ir.program.program import Program
from columba.ir.types import TensorType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import Launcher
from columba.runtime.structure import taken


class Binder(Protocol):
    """Prepares one plan for the index arrays and counts of a graph."""

    def __call__(self, index: Sequence[Tensor], counts: Sequence[int]) -> Launcher: ...


@dataclass(frozen=True)
class Direction:
    """One direction of a program: how it is prepared for a graph, and which of the program's index arrays it reads."""

    bind: Binder
    index: tuple[int, ...]
    outputs: tuple[TensorType, ...]


@dataclass
class CompiledProgram:
    """What the operators need to know of a program.

    ``forward`` returns ``results`` results, then what is saved. ``sources[i]`` says what the backward direction's input ``i`` is:
    an input, a result (or saved value) of the forward one, or the gradient of a result. ``gradients[i]`` says where the gradient
    of input ``i`` is found: position in the backward outputs, or in the incoming gradients where it is passed through. ``spare`` are
    the backward inputs whose memory that direction may use again: saved values that nobody else sees. ``traced`` is what was compiled, if
    that is known, and ``returned`` says which of its results are those that ``forward`` returns.
    """

    name: str
    forward: Direction
    results: int
    backward: Direction | None = None
    sources: tuple[tuple[str, int], ...] = ()
    gradients: tuple[tuple[str, int] | None, ...] = ()
    spare: tuple[int, ...] = ()
    traced: Program | None = None
    returned: tuple[int, ...] = ()
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f"{self.name}#{next(_numbers)}"
        _programs[self.key] = self

    @functools.cached_property
    def dependences(self) -> frozenset[int]:
        """The inputs whose values gradients may depend on."""
        if self.traced is None:
            return frozenset()
        return gradient_dependences(self.traced, [n for n, g in enumerate(self.gradients) if g is not None])


_numbers = itertools.count()
_programs: weakref.WeakValueDictionary[str, CompiledProgram] = weakref.WeakValueDictionary()


def program(key: str) -> CompiledProgram:
    """The registered program, or an error that says why there may be none."""
    try:
        return _programs[key]
    except KeyError:
        raise RuntimeError(
            f"columba: no program {key!r} is compiled in this process. Exported models hold the name of a program, not its "
            "kernels: compile and call the model once in the process that loads it, and keep it."
        ) from None


def _empty(outputs: Sequence[TensorType], counts: Sequence[int], device: torch.device) -> list[Tensor]:
    rows = Counts(counts)
    return [torch.empty(rows.shape(t), dtype=torch_dtype(t.dtype), device=device) for t in outputs]


def bind(direction: Direction, index: Sequence[Tensor], counts: Sequence[int]) -> Launcher:
    """A direction prepared for a graph: ``index`` are the index arrays of the program."""
    return direction.bind(taken(index, direction.index), counts)


def _run(
    direction: Direction, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int]
) -> list[Tensor]:
    return bind(direction, index, counts)(inputs)


@torch.library.custom_op("columba::forward", mutates_args=())
def forward(key: str, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """Results of a compiled program, then the values that its gradient needs."""
    return _run(program(key).forward, inputs, index, counts)


@forward.register_fake
def _(key: str, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    return _empty(program(key).forward.outputs, counts, inputs[0].device)


@torch.library.custom_op("columba::backward", mutates_args=())
def backward(key: str, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """Gradients of a compiled program's inputs, from inputs, saved values and incoming gradients."""
    return _run(_backward_of(key), inputs, index, counts)


@backward.register_fake
def _(key: str, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    return _empty(_backward_of(key).outputs, counts, inputs[0].device)


def _backward_of(key: str) -> Direction:
    direction = program(key).backward
    if direction is None:
        raise RuntimeError(f"columba: program {key!r} was compiled for inference; no input required a gradient")
    return direction


def _setup_forward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    key, tensors, index, counts = inputs
    ctx.program, ctx.counts = program(key), counts
    ctx.inputs, ctx.outputs = len(tensors), len(output)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output, *index)


def _backward_of_forward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    compiled = ctx.program
    kept = ctx.saved_tensors
    outputs = kept[ctx.inputs : ctx.inputs + ctx.outputs]
    index = kept[ctx.inputs + ctx.outputs :]

    def grad(n: int) -> Tensor:
        given = grads[n]
        return torch.zeros_like(outputs[n]) if given is None else given

    places: dict[str, Callable[[int], Tensor]] = {
        "input": kept.__getitem__,
        "result": outputs.__getitem__,
        "grad": grad,
    }
    tensors = [places[place](n) for place, n in compiled.sources]
    found = backward(compiled.key, tensors, list(index), ctx.counts) if compiled.backward is not None else []
    places["output"] = found.__getitem__
    gradients: list[Any] = [None if g is None else places[g[0]](g[1]) for g in compiled.gradients]
    for n in copied_gradients(compiled.gradients):
        gradients[n] = gradients[n].clone()
    return None, gradients, [None] * len(index), None


def copied_gradients(gradients: Sequence[tuple[str, int] | None]) -> list[int]:
    """The inputs whose gradient must be a copy, so that each owns its memory: what another input was given, what is saved."""
    return [
        n
        for n, g in enumerate(gradients)
        if g is not None and (g[0] in ("input", "result") or (g[0] == "output" and g in gradients[:n]))
    ]


forward.register_autograd(_backward_of_forward, setup_context=_setup_forward)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.program = program(inputs[0])


def _no_second_derivative(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    raise RuntimeError(
        f"columba: the gradient of {ctx.program.name} has no gradient of its own where torch.compile, or somebody else, calls its "
        "operators: they are differentiable once. For second derivatives call the compiled function itself, outside of torch.compile."
    )


backward.register_autograd(_no_second_derivative, setup_context=_setup_backward)
