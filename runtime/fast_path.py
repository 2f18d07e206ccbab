"""A compiled program on a graph, and the way past the dispatcher.

Where nobody looks at operators (plain tensors, no dispatch or tracing mode, no function transform) a call goes to the kernels directly,
under an ``autograd.Function`` if a gradient is wanted: on small graphs the dispatcher would cost more than the kernels. All other calls,
and gradients that are differentiated again, are those of :mod:`columba.runtime.transforms`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from columba.runtime import operators, transforms
from columba.runtime.executable import Launcher, collecting, collecting_in
from columba.runtime.operators import CompiledProgram, copied_gradients
from columba.runtime.structure import Structure


class Wiring:
    """What the forward direction of a program keeps for the backward one, and how that is used, on any graph.

    Saved values that nobody else sees may be ``packed``: they, by their positions among the outputs, stand in one tensor.

    Attributes:
        inputs, outputs: positions of what is kept, among the inputs and among what ``forward`` returns. Packed values come last.
        results: those of the outputs that are kept for themselves, as ``forward`` numbers them if nothing is packed.
        takes: where ``backward`` finds its inputs: position in what is kept, or, as ``~n``, incoming gradient ``n``.
        grads: the incoming gradients that are read.
        gives: where the gradients of the inputs are found, as in :class:`CompiledProgram`, but for what is kept, as ``("kept", n)``.
        repeated: the inputs whose gradients are copies of what is found there.
        extra: inputs that are not read, but on which gradients depend, through saved values: second derivatives need them.
    """

    def __init__(self, program: CompiledProgram, packed: Sequence[int] = ()) -> None:
        used = dict.fromkeys((*program.sources, *filter(None, program.gradients)))
        self.inputs = [n for place, n in used if place == "input"]
        results = [n for place, n in used if place == "result" and n not in packed]
        returned = [n for n in range(len(program.forward.outputs)) if n not in packed]
        self.outputs = [returned.index(n) for n in results] + ([len(returned)] if packed else [])
        self.results = results
        kept = [*(("input", n) for n in self.inputs), *(("result", n) for n in results)]
        sources = [s for s in program.sources if s[0] != "result" or s[1] not in packed]
        self.takes = [~n if place == "grad" else kept.index((place, n)) for place, n in sources]
        self.takes += [len(kept)] if packed else []
        self.grads = dict.fromkeys(n for place, n in used if place == "grad")
        self.gives = [
            None if g is None else ("kept", kept.index(g)) if g[0] in ("input", "result") else g
            for g in program.gradients
        ]
        self.repeated = copied_gradients(program.gradients)
        self.extra = sorted(program.dependences - {*self.inputs})


class Wirings:
    """Of one program: with nothing packed, and with all that may be."""

    def __init__(self, program: CompiledProgram) -> None:
        seen = program.gradients
        saved = [n for p, n in program.sources if p == "result" and n >= program.results and (p, n) not in seen]
        self.saved, self.read = saved, [program.sources.index(("result", n)) for n in saved]
        self.apart, self.packed = Wiring(program), Wiring(program, saved)
        self.inputs_kept = (*self.apart.inputs, *self.apart.extra)


@functools.lru_cache(maxsize=256)
def _wirings(key: str) -> Wirings:
    return Wirings(operators.program(key))


class DirectionPair(Wiring):
    """The two directions of a program on a graph, and how they work together."""

    def __init__(self, forward: Launcher, backward: Launcher | None, wiring: Wiring) -> None:
        vars(self).update(vars(wiring))
        self.forward, self.backward = forward, backward


class ProgramOnGraph:
    """A program prepared for one graph. Call it with the program's inputs; it returns the results.

    Args:
        program: what to run.
        index: the index arrays of the program.
        counts: rows of every space.
        structure: what else may be asked of the graph, where PyTorch's operators run the program.
    """

    def __init__(
        self,
        program: CompiledProgram,
        index: Sequence[Tensor],
        counts: Sequence[int],
        structure: Structure | None = None,
    ) -> None:
        self.program = program
        self.structure = structure
        self.index, self.counts = index, list(counts)
        self.forward = operators.bind(program.forward, index, counts)
        self.gradients = bool(program.gradients)
        self.wirings = _wirings(program.key)
        self.inputs_kept = self.wirings.inputs_kept

    @functools.cached_property
    def backward(self) -> Launcher | None:
        """The backward direction: bound when it is first wanted, which inference never does."""
        backward = self.program.backward
        return None if backward is None else operators.bind(backward, self.index, self.counts)

    @functools.cached_property
    def pair(self) -> DirectionPair:
        """The two directions."""
        return DirectionPair(self.forward, self.backward, self.wirings.apart)

    @functools.cached_property
    def packed_pair(self) -> DirectionPair:
        """The two directions with the saved values that only the backward one reads in one tensor, if that gains anything."""
        backward = self.backward
        if backward is None:
            return self.pair
        # The backward direction first, which does more: where it is not small, nothing is gained.
        packed_backward = backward.packed(inputs=self.wirings.read)
        packed_forward = None if packed_backward is None else self.forward.packed(outputs=self.wirings.saved)
        if packed_forward is None or packed_backward is None:
            return self.pair
        return DirectionPair(packed_forward, packed_backward, self.wirings.packed)

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results; by :mod:`columba.runtime.transforms` where somebody looks at what is called."""
        if not is_plain(inputs):
            return transforms.run(self, inputs)
        self.forward.check(inputs)
        with self.range("forward"):
            return self.run_plain(inputs)

    def run_plain(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results, for inputs of the right shapes and dtypes that :func:`is_plain` has seen."""
        if self.gradients and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return FastPath.apply(self, *inputs)  # type: ignore[no-any-return, no-untyped-call]
        return self.forward.run(inputs)

    def range(self, direction: str) -> contextlib.AbstractContextManager[Any]:
        """What shows a direction to profilers, if there is one."""
        if not torch.autograd._profiler_enabled():
            return _no_range
        return torch.profiler.record_function(f"columba::{self.program.name} {direction}")

    def run_forward(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """All outputs of the forward direction, without a gradient: by the operator where modes look at operators."""
        if not is_plain(inputs):
            return operators.forward(self.program.key, list(inputs), list(self.index), self.counts)
        self.forward.check(inputs)
        with self.range("forward"):
            return self.forward.run(inputs)

    def run_backward(
        self, inputs: Sequence[Tensor | None], values: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> list[Tensor]:
        """The gradients of the inputs that have one, without a gradient of their own: see :func:`transforms.gradients`."""
        program, pair = self.program, self.pair
        places: dict[str, Any] = {
            "input": inputs,
            "grad": grads,
            "result": dict(zip(pair.results, values, strict=True)),
        }
        tensors = [places[place][n] for place, n in program.sources]
        found: Sequence[Tensor] = ()
        if self.backward is not None and not is_plain(tensors):
            found = operators.backward(program.key, tensors, list(self.index), self.counts)
        elif self.backward is not None:
            self.backward.check(tensors)
            with self.range("backward"):
                found = self.backward.run(tensors)
        places["output"] = found
        taken = [places[g[0]][g[1]] for g in program.gradients if g is not None]
        return [
            x if any(x is y for y in found) and not any(x is y for y in taken[:n]) else x.clone()
            for n, x in enumerate(taken)
        ]


_no_range = contextlib.nullcontext()


def is_plain(inputs: Sequence[Tensor]) -> bool:
    """Whether nothing but autograd looks at what happens to these tensors."""
    for x in inputs:
        if type(x) not in PLAIN or not (x.is_cpu or x.is_cuda):
            return False
    return _is_unwatched()


PLAIN = (Tensor, torch.nn.Parameter)


def no_modes() -> bool:
    """Whether nothing is active that must see a call, or its operators: neither a profiler nor anything that :func:`is_plain` asks for."""
    return _is_unwatched() and not torch.autograd._profiler_enabled()


def _is_unwatched() -> bool:
    """Whether no compiler, tracer, dispatch mode, function transform or forward mode is active."""
    return (
        not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
        and not torch.compiler.is_compiling()
    )


class FastPath(torch.autograd.Function):
    """The gradient of a program without the dispatcher; saves only what the backward direction reads."""

    @staticmethod
    def forward(ctx: Any, on_graph: ProgramOnGraph, *inputs: Tensor) -> tuple[Tensor, ...]:
        # Hooks may keep saved tensors, or return others: they see each by itself, and its memory is not ours to use again.
        hooked = torch._C._autograd._top_saved_tensors_default_hooks(False) is not None
        pair = on_graph.pair if hooked else on_graph.packed_pair
        outputs = pair.forward.run(inputs)
        ctx.on_graph, ctx.pair = on_graph, pair
        ctx.spare = () if hooked or pair is not on_graph.pair else on_graph.program.spare
        ctx.set_materialize_grads(False)
        # Not saved: a change of these is no error where nobody differentiates twice.
        extra = [inputs[n] for n in pair.extra] if pair.extra else ()
        ctx.extra = None if hooked else [(x, _version(x)) for x in extra] if extra else ()
        kept = [*[inputs[n] for n in pair.inputs], *[outputs[n] for n in pair.outputs]]
        ctx.save_for_backward(*kept, *extra) if hooked else ctx.save_for_backward(*kept)
        results = outputs[: on_graph.program.results]
        ctx.results = [(x.shape, x.dtype) for x in results]
        ctx.times = collecting()
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        on_graph: ProgramOnGraph = ctx.on_graph
        pair: DirectionPair = ctx.pair
        kept = ctx.saved_tensors  # freed where the pass ran before: PyTorch says so
        if ctx.spare is None:
            raise RuntimeError(
                f"columba: the backward pass of {on_graph.program.name} failed before and has used up what was saved for it"
            )
        grads: list[Any] = list(given)
        device = next((g.device for g in given if g is not None), None)
        if device is None:  # nobody asks for a gradient
            return (None,) * (1 + len(pair.gives))
        for n in pair.grads:
            if grads[n] is None:
                shape, dtype = ctx.results[n]
                grads[n] = torch.zeros(shape, dtype=dtype, device=device)
        tensors: list[Tensor] = [kept[n] if n >= 0 else grads[~n] for n in pair.takes]
        if torch.is_grad_enabled() or not is_plain(tensors):
            return None, *_differentiably(ctx, kept, tensors, grads)
        found: Sequence[Tensor] = ()
        keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph()
        if pair.backward is not None:
            spare = () if keeps_graph else ctx.spare
            # Parameters may have been given other data since: this check sees what autograd's does not.
            pair.backward.check(tensors)
            if spare:
                ctx.spare = None
            try:
                if ctx.times is None and not torch.autograd._profiler_enabled():
                    found = pair.backward.run(tensors, spare)
                else:
                    times = collecting() if ctx.times is None else ctx.times
                    with collecting_in(times), on_graph.range("backward"):
                        found = pair.backward.run(tensors, spare)
            except RuntimeError:
                # Gradients in a batch (is_grads_batched) show only in that they have no data: asking before each run would take longer.
                if not any(map(torch._C._functorch.is_legacy_batchedtensor, tensors)):
                    raise
                ctx.spare = spare
                return None, *_differentiably(ctx, kept, tensors, grads, in_batch=True)
        if ctx.extra and not keeps_graph:
            ctx.extra = ()
        places: dict[str, Sequence[Tensor]] = {"kept": kept, "grad": grads, "output": found}
        gradients: list[Any] = [None if g is None else places[g[0]][g[1]] for g in pair.gives]
        for n in pair.repeated:
            gradients[n] = gradients[n].clone()
        return None, *gradients


def _differentiably(
    ctx: Any, kept: Sequence[Tensor], tensors: Sequence[Tensor], grads: Sequence[Tensor | None], in_batch: bool = False
) -> list[Tensor | None]:
    """The gradients of the inputs of a :class:`FastPath`, where they are differentiated again or something looks at them."""
    on_graph: ProgramOnGraph = ctx.on_graph
    pair: DirectionPair = ctx.pair
    program = on_graph.program
    inputs: list[Tensor | None] = [None] * len(program.gradients)
    for n, x in zip(pair.inputs, kept, strict=False):
        inputs[n] = x
    for n, x in zip(pair.extra, _extra(ctx, kept), strict=True):
        inputs[n] = x
    results = dict(zip(pair.results, kept[len(pair.inputs) :], strict=False))
    if pair.backward is not None:
        unpacked = zip(program.sources, pair.backward.unpacked(tensors), strict=True)
        results.update((n, x) for (place, n), x in unpacked if place == "result")
    return transforms.gradients(on_graph, inputs, [results[n] for n in on_graph.pair.results], grads, in_batch)


def _extra(ctx: Any, kept: Sequence[Tensor]) -> Sequence[Tensor]:
    """The inputs that are kept for second derivatives alone."""
    pair: DirectionPair = ctx.pair
    if ctx.extra is None:  # hooks have them
        return kept[len(kept) - len(pair.extra) :]
    for x, seen in ctx.extra:
        if _version(x) != seen:
            raise RuntimeError(
                f"columba: the second derivative of {ctx.on_graph.program.name} needs an input of shape {list(x.shape)} that has been "
                "modified by an inplace operation since"
            )
    return [x for x, _ in ctx.extra]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version
