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

from columba.ir.counts import Counts
from columba.ir.types import TensorType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import Launcher


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
    rows = Counts(counts)
    return [torch.empty(rows.shape(t), dtype=torch_dtype(t.dtype), device=device) for t in outputs]


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
    gradients: list[Any] = [None if g is None else places[g[0]](g[1]) for g in compiled.gradients]
    for n in _repeated(compiled.gradients):
        gradients[n] = gradients[n].clone()
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


class _Way:
    """How the two directions of a program work together on a graph, and what the first keeps for the second.

    Saved values that nobody else sees may be ``packed``: they, by their positions among the outputs, stand in one tensor.

    Attributes:
        inputs, outputs: positions of what is kept, among the inputs and among what ``forward`` returns. Packed values come last.
        takes: where ``backward`` finds its inputs: position in what is kept, or, as ``~n``, incoming gradient ``n``.
        grads: the incoming gradients that are read.
        gives: where the gradients of the inputs are found, as in :class:`CompiledProgram`, but for what is kept, as ``("kept", n)``.
        repeated: the inputs whose gradients are copies of what is found there.
    """

    def __init__(
        self, program: CompiledProgram, forward: Launcher, backward: Launcher | None, packed: Sequence[int] = ()
    ) -> None:
        self.forward, self.backward = forward, backward
        used = dict.fromkeys((*program.sources, *filter(None, program.gradients)))
        self.inputs = [n for place, n in used if place == "input"]
        results = [n for place, n in used if place == "result" and n not in packed]
        returned = [n for n in range(len(program.forward.outputs)) if n not in packed]
        self.outputs = [returned.index(n) for n in results] + ([len(returned)] if packed else [])
        kept = [*(("input", n) for n in self.inputs), *(("result", n) for n in results)]
        sources = [s for s in program.sources if s[0] != "result" or s[1] not in packed]
        self.takes = [~n if place == "grad" else kept.index((place, n)) for place, n in sources]
        self.takes += [len(kept)] if packed else []
        self.grads = dict.fromkeys(n for place, n in used if place == "grad")
        self.gives = [
            None if g is None else ("kept", kept.index(g)) if g[0] in ("input", "result") else g
            for g in program.gradients
        ]
        self.repeated = _repeated(program.gradients)


def _repeated(gradients: Sequence[tuple[str, int] | None]) -> list[int]:
    """The inputs whose gradient must be a copy, so that each owns its memory: what another input was given, what is saved."""
    return [
        n
        for n, g in enumerate(gradients)
        if g is not None and (g[0] in ("input", "result") or (g[0] == "output" and g in gradients[:n]))
    ]


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
        self.way = _Way(program, self.forward, self.backward)
        self.short = self._packed() or self.way

    def _packed(self) -> _Way | None:
        """The way on which the saved values that only the backward direction reads are one tensor; None where that gains nothing."""
        if self.backward is None:
            return None
        seen = self.program.gradients
        saved = [
            n for p, n in self.program.sources if p == "result" and n >= self.program.results and (p, n) not in seen
        ]
        forward = self.forward.packed(outputs=saved)
        backward = self.backward.packed(inputs=[self.program.sources.index(("result", n)) for n in saved])
        return None if forward is None or backward is None else _Way(self.program, forward, backward, saved)

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
        # Hooks may keep saved tensors, or return others: they see each by itself, and its memory is not ours to use again.
        hooked = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
        way = on_graph.way if hooked else on_graph.short
        outputs = way.forward.run(inputs)
        ctx.on_graph, ctx.way = on_graph, way
        ctx.spare = () if hooked or way is not on_graph.way else on_graph.program.spare
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*[inputs[n] for n in way.inputs], *[outputs[n] for n in way.outputs])
        results = outputs[: on_graph.program.results]
        ctx.results = [(x.shape, x.dtype) for x in results]
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        on_graph: ProgramOnGraph = ctx.on_graph
        way: _Way = ctx.way
        kept = ctx.saved_tensors  # freed where the pass ran before: PyTorch says so
        if ctx.spare is None:
            raise RuntimeError(
                f"columba: the backward pass of {on_graph.program.name} failed before and has used up what was saved for it"
            )
        grads: list[Any] = list(given)
        for n in way.grads:
            if grads[n] is None:
                shape, dtype = ctx.results[n]
                grads[n] = torch.zeros(shape, dtype=dtype)
        found: Sequence[Tensor] = ()
        if way.backward is not None:
            tensors: list[Tensor] = [kept[n] if n >= 0 else grads[~n] for n in way.takes]
            # Parameters may have been given other data since: the next check sees what autograd's does not.
            if is_plain(tensors) and not torch.is_grad_enabled():
                spare = () if torch._C._autograd._get_current_graph_task_keep_graph() else ctx.spare
                way.backward.check(tensors)
                if spare:
                    ctx.spare = None
                found = way.backward.run(tensors, spare)
            else:
                tensors = way.backward.unpacked(tensors)
                found = backward(on_graph.program.key, tensors, on_graph.index, on_graph.counts)
        places: dict[str, Sequence[Tensor]] = {"kept": kept, "grad": grads, "output": found}
        gradients: list[Any] = [None if g is None else places[g[0]][g[1]] for g in way.gives]
        for n in way.repeated:
            gradients[n] = gradients[n].clone()
        return None, *gradients


__all__ = [
    "Binder",
    "CompiledProgram",
    "Direction",
    "ProgramOnGraph",
    "backward",
    "forward",
    "no_modes",
    "program",
]
