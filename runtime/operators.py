"""Compiled programs as PyTorch operators, and the short way past them.

Two operators serve all programs: ``columba::forward`` and ``columba::backward``. They take the key of a program that is registered
in this process, its input tensors, the index arrays of the graph, and the row counts of its spaces; everything that varies from
call to call is thus an argument, and shapes may be symbolic. Both have fake implementations; the first has the second as its
gradient, and the second has none.

Where nobody looks at operators (plain tensors, no dispatch or tracing mode, no functorch transform, no profiler) a call goes to the
kernels directly, under an ``autograd.Function`` if a gradient is wanted: on small graphs the dispatcher would cost more than the kernels.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from columba.ir.types import TensorType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.launch import SPACES, Launcher, shape_of


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
    the backward inputs whose memory that direction may use again: saved values that nobody else sees.
    """

    name: str
    forward: Direction
    results: int
    backward: Direction | None = None
    sources: tuple[tuple[str, int], ...] = ()
    gradients: tuple[tuple[str, int] | None, ...] = ()
    spare: tuple[int, ...] = ()
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f"{self.name}#{next(_numbers)}"
        _programs[self.key] = self


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
    return [torch.empty(shape_of(t, counts), dtype=torch_dtype(t.dtype), device=device) for t in outputs]


def _bind(direction: Direction, index: Sequence[Tensor], counts: Sequence[int]) -> Launcher:
    return direction.bind([index[n] for n in direction.index], counts)


def _run(
    direction: Direction, inputs: Sequence[Tensor], index: Sequence[Tensor], counts: Sequence[int]
) -> list[Tensor]:
    return _bind(direction, index, counts)(inputs)


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
    gradients = [None if g is None else places[g[0]](g[1]) for g in compiled.gradients]
    return None, gradients, [None] * len(index), None


forward.register_autograd(_backward_of_forward, setup_context=_setup_forward)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.program = program(inputs[0])


def _no_second_derivative(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    raise RuntimeError(
        f"columba: the gradient of {ctx.program.name} has no gradient of its own: compiled programs are differentiable once. "
        'For second derivatives run the model uncompiled or with backend="torch".'
    )


backward.register_autograd(_no_second_derivative, setup_context=_setup_backward)


# ------------------------------------------------------------------------------------------------ the short way


class ProgramOnGraph:
    """A program prepared for one graph. Call it with the program's inputs; it returns the results.

    Args:
        program: what to run.
        index: the index arrays of the program.
        counts: rows of every space.
    """

    def __init__(self, program: CompiledProgram, index: Sequence[Tensor], counts: Sequence[int]) -> None:
        self.program = program
        self.index, self.counts = list(index), list(counts)
        self.forward = _bind(program.forward, index, counts)
        self.backward = None if program.backward is None else _bind(program.backward, index, counts)
        self.gradients = bool(program.gradients)
        saved = [
            s
            for s in dict.fromkeys((*program.sources, *filter(None, program.gradients)))
            if s[0] in ("input", "result")
        ]
        self.saved_inputs = [n for place, n in saved if place == "input"]
        self.saved_results = [n for place, n in saved if place == "result"]
        self.saved = {s: n for n, s in enumerate(s for place in ("input", "result") for s in saved if s[0] == place)}

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results; through the operators where somebody looks at them."""
        if not is_plain(inputs):
            return forward(self.program.key, list(inputs), self.index, self.counts)[: self.program.results]
        self.forward.check(inputs)
        return self.run_plain(inputs)

    def run_plain(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results, for inputs of the right shapes and dtypes that :func:`is_plain` has seen."""
        if self.gradients and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return _ShortWay.apply(self, *inputs)  # type: ignore[no-any-return, no-untyped-call]
        return self.forward.run(inputs)


def is_plain(inputs: Sequence[Tensor]) -> bool:
    """Whether nothing but autograd looks at what happens to these tensors."""
    return no_modes() and all(type(x) in PLAIN and x.is_cpu for x in inputs)


PLAIN = (Tensor, torch.nn.Parameter)


def no_modes() -> bool:
    """Whether operators may be passed by: no compiler, tracer, dispatch mode, function transform or profiler is active."""
    return (
        not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._get_tracing_state() is None
        and not torch.autograd._profiler_enabled()
        and not torch.compiler.is_compiling()
    )


class _ShortWay(torch.autograd.Function):
    """The gradient of a program without the dispatcher; saves only what the backward direction reads."""

    @staticmethod
    def forward(ctx: Any, on_graph: ProgramOnGraph, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = on_graph.forward.run(inputs)
        ctx.on_graph = on_graph
        # Hooks may keep saved tensors, or return others: their memory is not ours to use again.
        ctx.spare = on_graph.program.spare if torch._C._autograd._top_saved_tensors_default_hooks(False) is None else ()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            *[inputs[n] for n in on_graph.saved_inputs], *[outputs[n] for n in on_graph.saved_results]
        )
        results = outputs[: on_graph.program.results]
        ctx.results = [(x.shape, x.dtype) for x in results]
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        on_graph: ProgramOnGraph = ctx.on_graph
        if ctx.spare is None:
            raise RuntimeError(
                f"columba: the backward pass of {on_graph.program.name} failed before and has used up what was saved for it"
            )
        compiled, kept = on_graph.program, ctx.saved_tensors

        def value(place: str, n: int) -> Tensor:
            if place != "grad":
                return kept[on_graph.saved[place, n]]  # type: ignore[no-any-return]
            given = grads[n]
            return torch.zeros(ctx.results[n][0], dtype=ctx.results[n][1]) if given is None else given

        found: Sequence[Tensor] = ()
        if on_graph.backward is not None:
            tensors = [value(*source) for source in compiled.sources]
            if is_plain(tensors) and not torch.is_grad_enabled():
                spare = () if torch._C._autograd._get_current_graph_task_keep_graph() else ctx.spare
                on_graph.backward.check(tensors)
                if spare:
                    ctx.spare = None
                found = on_graph.backward.run(tensors, spare)
            else:
                found = backward(compiled.key, tensors, on_graph.index, on_graph.counts)
        return None, *(
            None if g is None else found[g[1]] if g[0] == "output" else value(*g) for g in compiled.gradients
        )


__all__ = [
    "SPACES",
    "Binder",
    "CompiledProgram",
    "Direction",
    "ProgramOnGraph",
    "backward",
    "forward",
    "no_modes",
    "program",
    "shape_of",
]
