"""A compiled program on a graph, and the way past the dispatcher.

Where nobody looks at operators (plain tensors, no dispatch or tracing mode, no functorch transform, no profiler) a call goes to the
kernels directly, under an ``autograd.Function`` if a gradient is wanted: on small graphs the dispatcher would cost more than the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from columba.runtime import operators
from columba.runtime.executable import Launcher, collecting, collecting_in
from columba.runtime.operators import CompiledProgram, copied_gradients


class DirectionPair:
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
        self.repeated = copied_gradients(program.gradients)


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
        self.forward = operators.bind(program.forward, index, counts)
        self.backward = None if program.backward is None else operators.bind(program.backward, index, counts)
        self.gradients = bool(program.gradients)
        self.pair = DirectionPair(program, self.forward, self.backward)
        self.packed_pair = self._packed() or self.pair

    def _packed(self) -> DirectionPair | None:
        """The two directions with the saved values that only the backward one reads in one tensor; None where that gains nothing."""
        if self.backward is None:
            return None
        seen = self.program.gradients
        saved = [
            n for p, n in self.program.sources if p == "result" and n >= self.program.results and (p, n) not in seen
        ]
        forward = self.forward.packed(outputs=saved)
        backward = self.backward.packed(inputs=[self.program.sources.index(("result", n)) for n in saved])
        return None if forward is None or backward is None else DirectionPair(self.program, forward, backward, saved)

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results; through the operators where somebody looks at them."""
        if not is_plain(inputs):
            return operators.forward(self.program.key, list(inputs), self.index, self.counts)[: self.program.results]
        self.forward.check(inputs)
        return self.run_plain(inputs)

    def run_plain(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The results, for inputs of the right shapes and dtypes that :func:`is_plain` has seen."""
        if self.gradients and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return FastPath.apply(self, *inputs)  # type: ignore[no-any-return, no-untyped-call]
        return self.forward.run(inputs)


def is_plain(inputs: Sequence[Tensor]) -> bool:
    """Whether nothing but autograd looks at what happens to these tensors."""
    return no_modes() and all(type(x) in PLAIN and (x.is_cpu or x.is_cuda) for x in inputs)


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
        ctx.save_for_backward(*[inputs[n] for n in pair.inputs], *[outputs[n] for n in pair.outputs])
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
        found: Sequence[Tensor] = ()
        if pair.backward is not None:
            tensors: list[Tensor] = [kept[n] if n >= 0 else grads[~n] for n in pair.takes]
            # Parameters may have been given other data since: the next check sees what autograd's does not.
            if is_plain(tensors) and not torch.is_grad_enabled():
                spare = () if torch._C._autograd._get_current_graph_task_keep_graph() else ctx.spare
                pair.backward.check(tensors)
                if spare:
                    ctx.spare = None
                if ctx.times is None:
                    found = pair.backward.run(tensors, spare)
                else:
                    with collecting_in(ctx.times):
                        found = pair.backward.run(tensors, spare)
            else:
                tensors = pair.backward.unpacked(tensors)
                found = operators.backward(on_graph.program.key, tensors, on_graph.index, on_graph.counts)
        places: dict[str, Sequence[Tensor]] = {"kept": kept, "grad": grads, "output": found}
        gradients: list[Any] = [None if g is None else places[g[0]][g[1]] for g in pair.gives]
        for n in pair.repeated:
            gradients[n] = gradients[n].clone()
        return None, *gradients
