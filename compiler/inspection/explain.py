"""``columba.explain``: what the compiler made of a model, at every level."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from columba.calls.function import CompiledFunction
from columba.calls.options import Options
from columba.calls.regions import Break, called, named
from columba.calls.rollback import unchanged
from columba.calls.specialization import Kernels, Specialization
from columba.calls.specialize import compiled as compiled_as
from columba.driver import Compilation
from columba.frontend import Bound
from columba.frontend.layers import TracedLayer
from columba.inspection.prediction import predict
from columba.inspection.resources import reports
from columba.ir.plan.kernels import HostCall, Kernel
from columba.runtime.backends import backend_shown
from columba.runtime.dtypes import ir_dtype
from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import random_states_kept
from columba.runtime.triton.functions import settled_precision
from columba.selection.chips import chip as chip_called
from columba.selection.rates import machine_rates
from columba.selection.variants import Variants
from columba.selection.work import kernel_work


@dataclass(frozen=True)
class Region:
    """A part of a model that is compiled as one program.

    Attributes:
        name: the path of its module from the model, as in ``named_modules``; of the model itself ``""``.
        kind: the module's class.
        explanation: what the compiler made of it.
    """

    name: str
    kind: str
    explanation: Explanation

    def __str__(self) -> str:
        return called(self.name, self.kind)


@dataclass(frozen=True)
class Layer:
    """A layer of a model, or another module without modules of its own, and what runs it.

    Attributes:
        name: its path from the model, as in ``named_modules``; the model itself is ``""``.
        kind: its class.
        runs: ``"compiled"``, ``"partly"`` where PyTorch runs some of it between programs, or ``"PyTorch"``.
        route: how it was compiled: ``"generic"`` where its own ``forward`` was traced, ``"lowering"`` where the compiler has a form of its
            own for the class; empty where PyTorch runs it.
        programs: the numbers of the programs that compute it: positions in :attr:`Explanation.regions`.
        reasons: why not, or not all of it, was compiled: ``file:line: why``; of a class that has a lowering, also why that was not used.
    """

    name: str
    kind: str
    runs: str
    route: str
    programs: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(str(n + 1) for n in self.programs)
        words = [self.runs, self.route, f"program{'s' if len(self.programs) > 1 else ''} {numbers}" if numbers else ""]
        return f"{called(self.name, self.kind)}: {', '.join(word for word in words if word)}" + "".join(
            f"\n    {reason}" for reason in self.reasons
        )


@dataclass(frozen=True)
class Explanation:
    """A compiled model's stages as text.

    Attributes:
        compilation: programs and plans as objects.
        prelude: plain PyTorch operations on weights that run before the kernels, with autograd.
        source: the source of all kernels: Triton where those run, which ``backend="auto"`` leaves to the graph's device, else C++.
        runs: what runs such a call: kernels of which backend, and what is known of them, or PyTorch, and why.
        layers: what runs each layer of a model, in the order of ``named_modules``.
        precision: the ``fp32_precision`` that ``columba.compile`` was given.
    """

    compilation: Compilation
    prelude: tuple[str, ...]
    source: str
    variant: str
    costs: str
    graph: Graph
    precision: str | None = None
    runs: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def regions(self) -> tuple[Region, ...]:
        """The compiled regions: a model that is traced as one program is one."""
        return (Region("", self.compilation.traced.name, self),)

    @property
    def breaks(self) -> tuple[Break, ...]:
        """What runs in Python, and why."""
        return ()

    @property
    def level1(self) -> str:
        """The traced program, the optimized forward program, and the backward one."""
        c = self.compilation
        parts = [("traced", c.traced), ("forward", c.forward), ("backward", c.backward)]
        return "\n\n".join(f"// {title}\n{program}" for title, program in parts if program is not None)

    @property
    def level2(self) -> str:
        """The plans: which kernels run, over which buffers."""
        return "\n\n".join(str(plan) for plan in self.compilation.plans)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(k for plan in self.compilation.plans for k in plan.kernels)

    @property
    def host_calls(self) -> list[str]:
        """What PyTorch runs: the prelude, then the host calls of the plans, one operation a string."""
        calls = [f"prelude: {line}" for line in self.prelude]
        for kernel in self.kernels:
            if isinstance(kernel, HostCall):
                calls += [f"{kernel.name}: {line.strip()}" for line in str(kernel.program).splitlines()[1:-2]]
        return calls

    def gpu(self, chip: str = "h100", target: str | None = None) -> str:
        """What the program would take of a GPU as the Triton backend runs it: work, time at the chip's limits, memory.

        Args:
            chip: by a name of :data:`columba.selection.chips.CHIPS`.
            target: an architecture (``sm_80``, ``sm_90``, ``sm_100``, ``gfx942``) to compile the kernels for, ahead of time, so that
                the table says what registers and memory they take.
        """
        counts = self.graph.counts_and_degrees()
        prediction = predict(self.compilation, counts, settled_precision(self.precision))
        index_dtype = ir_dtype(self.graph.index_dtype)
        found = [] if target is None else list(reports(self.compilation, counts, target, index_dtype, self.precision))
        return prediction.table(chip_called(chip), found)

    def __str__(self) -> str:
        host = "\n".join(self.host_calls) or "none"
        sections = [
            *([("Layers", "\n".join(map(str, self.layers)))] if self.layers else []),
            ("What runs", self.runs),
            ("Level 1: programs", self.level1),
            ("Level 2: plans", self.level2),
            ("Run by PyTorch", host),
            ("Cost", self.costs),
            ("GPU", self.gpu()),
            ("Source", self.source),
        ]
        return "\n\n".join(f"=== {title} ===\n{text}" for title, text in sections)


class RegionsExplanation(Explanation):
    """A model that does not run as one program: its :attr:`regions`, and its :attr:`breaks`.

    Text (``level1``, ``level2``, ``source``, ``costs``, ``runs``), ``kernels`` and ``host_calls`` are those of all regions. What is one for
    each (``compilation``, ``variant``, ``graph``, ``prelude``) is that of the only region; of none, or several, it is an
    :class:`AmbiguousError`.
    """

    def __init__(self, regions: tuple[Region, ...], breaks: tuple[Break, ...], layers: tuple[Layer, ...] = ()) -> None:
        self.__dict__.update(_regions=regions, _breaks=breaks)
        if len(regions) == 1:
            self.__dict__.update(regions[0].explanation.__dict__)
        else:
            self.__dict__.update({name: self._joined(name) for name in ("source", "costs", "runs")})
        self.__dict__["layers"] = layers

    @property
    def regions(self) -> tuple[Region, ...]:
        found: tuple[Region, ...] = self.__dict__["_regions"]
        return found

    @property
    def breaks(self) -> tuple[Break, ...]:
        found: tuple[Break, ...] = self.__dict__["_breaks"]
        return found

    def __getattr__(self, name: str) -> Any:
        if name not in {f.name for f in fields(Explanation)}:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AmbiguousError(
            f"{name}: this model runs as {len(self.regions)} compiled regions, each with a {name} of its own: "
            f"explanation.regions[n].explanation.{name}; explanation.breaks says why"
        )

    def _joined(self, name: str) -> str:
        return "\n\n".join(f"##### {region} #####\n\n{getattr(region.explanation, name)}" for region in self.regions)

    @property
    def level1(self) -> str:
        return self._joined("level1")

    @property
    def level2(self) -> str:
        return self._joined("level2")

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(kernel for region in self.regions for kernel in region.explanation.kernels)

    @property
    def host_calls(self) -> list[str]:
        return [f"{region}: {call}" for region in self.regions for call in region.explanation.host_calls]

    def gpu(self, chip: str = "h100", target: str | None = None) -> str:
        return "\n\n".join(f"##### {r} #####\n\n{r.explanation.gpu(chip, target)}" for r in self.regions)

    def __str__(self) -> str:
        lines = [f"compiled: {region}" for region in self.regions]
        lines += [f"in Python: {one}" for one in self.breaks]
        parts = ["=== Layers ===\n" + "\n".join(map(str, self.layers))] if self.layers else []
        parts += ["=== Regions ===\n" + "\n".join(lines)]
        parts += [f"##### {region} #####\n\n{region.explanation}" for region in self.regions]
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return f"<{len(self.regions)} regions, {len(self.breaks)} breaks>"


class AmbiguousError(RuntimeError):
    """What was asked for is not one thing."""


def explain(target: Any, *args: Any, **kwargs: Any) -> Explanation:
    """Traces and compiles ``target`` for these arguments, without building or running kernels, and shows every stage.

    A model that cannot be traced as one program is run once, by PyTorch, to see which of its modules are compiled, for which arguments. Its
    parameters, buffers and attributes, and the random generators, are then as they were; its inner hooks have run.

    Args:
        target: a compiled or uncompiled module, function, or bound method, as :func:`columba.compile` takes.
        args, kwargs: the arguments of a call. Gradients are shown for what requires them, unless under ``torch.no_grad()``.

    Returns:
        An :class:`Explanation`; ``print`` it for everything. Where there are several regions it is a :class:`RegionsExplanation`, which
        lists them, and the breaks with their reasons.
    """
    compiled, owner = _compiled(target)
    found: dict[int, tuple[Any, str, list[Explanation], tuple[TracedLayer, ...]]] = {}
    lacking: dict[int, list[str]] = {}

    def seen(module: Any, function: CompiledFunction, specialization: Specialization, bound: Bound) -> None:
        if id(module) not in found:  # which is kept, for its identity
            kind = (
                type(module).__name__ if isinstance(module, nn.Module) else specialization.trace.parts[0].program.name
            )
            explanations = _explanations(function, specialization, bound)
            found[id(module)] = module, kind, explanations, specialization.trace.layers
            lacking[id(module)] = [reason for _, reason in specialization.trace.breaks]

    call_args = args if owner is None else (owner, *args)
    kept = contextlib.nullcontext() if owner is None else unchanged(owner)
    with random_states_kept(), kept:  # a call would draw seeds of dropout; this is none
        breaks = compiled.explained(seen, *call_args, **kwargs)
    root = compiled if owner is None else owner
    names = named(root)
    regions: list[Region] = []
    layers = [_in_python(one) for one in breaks if one.is_layer]
    for i, (_, kind, explanations, traced) in found.items():
        name = names.get(i, f"<{kind}>")
        layers += [_layer(one, names.get(i), len(regions)) for one in traced]
        for n, explanation in enumerate(explanations, 1):
            what = kind if len(explanations) == 1 else f"{kind}, program {n} of {len(explanations)}"
            regions.append(Region(name, what, explanation))
        breaks += [Break(name, kind, reason) for reason in lacking[i]]
    order = {name: n for n, name in enumerate(names.values())}
    layers.sort(key=lambda layer: order.get(layer.name, len(order)))
    if len(regions) == 1 and not breaks:
        return replace(regions[0].explanation, layers=tuple(layers))
    return RegionsExplanation(tuple(regions), tuple(breaks), tuple(layers))


def _layer(traced: TracedLayer, root: str | None, first: int) -> Layer:
    """What a trace says of a layer; ``root`` is the path of what was traced, and ``first`` the number of its first program."""
    name = f"<{traced.kind}>" if traced.path is None or root is None else ".".join(p for p in (root, traced.path) if p)
    runs = "PyTorch" if not traced.parts else "partly" if traced.reasons else "compiled"
    reasons = traced.reasons + ((f"not lowered: {traced.why}",) if traced.why else ())
    return Layer(
        name, traced.kind, runs, traced.route if traced.parts else "", tuple(first + n for n in traced.parts), reasons
    )


def _in_python(one: Break) -> Layer:
    return Layer(one.name, one.kind, "PyTorch", "", (), (one.reason,))


def _explanations(compiled: CompiledFunction, specialization: Specialization, bound: Bound) -> list[Explanation]:
    """One for each program."""
    found = []
    for n, (kernels, graph, inputs) in enumerate(specialization.met(bound)):
        variant, variants = kernels.explain(graph, inputs)
        shown = backend_shown(compiled.options.backend, graph.device)
        compilation = variants.compilation(variant)
        replayed = specialization.trace.replayed if len(specialization.kernels) == 1 else _replayed(specialization, n)
        found.append(
            Explanation(
                compilation,
                tuple(f"%{step.number} = {step}" for step in replayed),
                compilation.source(ir_dtype(graph.index_dtype), shown.name),
                variant,
                _costs(variant, variants, graph),
                graph,
                compiled.options.fp32_precision,
                kernels.runs(graph, inputs),
            )
        )
    return found


def _replayed(specialization: Specialization, number: int) -> list[Any]:
    """What PyTorch computes for one of several programs, and of its results."""
    part = specialization.trace.parts[number]
    return [*part.converted.prelude, *part.converted.postlude]


def _costs(chosen: str, variants: Variants, graph: Graph) -> str:
    """The costs of all variants, and of the chosen one's kernels, as text."""
    counts, rates = graph.counts(), machine_rates(graph.device)
    lines = [
        f"{'*' if name == chosen else ' '} {seconds * 1e3:9.3f} ms  {name}"
        for name, seconds in variants.costs(counts, rates).items()
    ]
    if chosen in variants.origins:
        lines.append(f"* {chosen}, chosen by {variants.origins[chosen]}")
    lines += ["", f"{'ms':>9} {'Mflop':>10} {'MB':>9}  kernel of {chosen}"]
    for plan in variants.compilation(chosen).plans:
        for kernel in plan.kernels:
            work = kernel_work(kernel, counts, rates.cache)
            moved = (work.streamed + work.near + work.far) / 1e6
            flops = (work.products + work.pointwise) / 1e6
            lines.append(f"{rates.seconds(work) * 1e3:9.3f} {flops:10.1f} {moved:9.2f}  {plan.name} {kernel.name}")
    return "\n".join(lines)


def tunable(target: Any, *args: Any, **kwargs: Any) -> tuple[list[tuple[Variants, Graph]], Options]:
    """For each program that a call with these arguments runs, the variants among which it chooses, and its graph; and what
    ``columba.compile`` was asked for. A program that runs several times on graphs of the same sizes is there once."""
    compiled, owner = _compiled(target)
    found: dict[Any, tuple[Variants, Graph]] = {}

    def seen(module: Any, function: CompiledFunction, specialization: Specialization, bound: Bound) -> None:
        for kernels, graph, inputs in specialization.met(bound):
            variants = kernels.variants_for(graph, inputs)
            found.setdefault((variants.key, tuple(graph.counts().items())), (variants, graph))

    call_args = args if owner is None else (owner, *args)
    kept = contextlib.nullcontext() if owner is None else unchanged(owner)
    with random_states_kept(), kept:
        compiled.explained(seen, *call_args, **kwargs)
    return list(found.values()), compiled.options


def compile_for(target: Any, *args: Any, **kwargs: Any) -> tuple[Compilation, Graph]:
    """What a target compiles to for these arguments, and the graph among them."""
    _, specialization, bound = _specialized(target, args, kwargs)
    kernels, graph, inputs = _only(specialization, bound)
    variant, variants = kernels.explain(graph, inputs)
    return variants.compilation(variant), graph


def variants_for(target: Any, *args: Any, **kwargs: Any) -> tuple[Variants, Graph]:
    """The ways to compile a target for these arguments, and the graph among them."""
    _, specialization, bound = _specialized(target, args, kwargs)
    kernels, graph, inputs = _only(specialization, bound)
    return kernels.explain(graph, inputs)[1], graph


def _only(specialization: Specialization, bound: Bound) -> tuple[Kernels, Graph, list[Tensor]]:
    """The only program of a call."""
    found = list(specialization.met(bound))
    if len(found) > 1:
        raise AmbiguousError(
            f"this is compiled as {len(found)} programs, one for each stretch of it along one graph; name a part that uses one graph, or "
            "compile its layers for themselves"
        )
    return found[0]


def precision_for(target: Any) -> str | None:
    """The ``fp32_precision`` that ``columba.compile`` was given."""
    return _compiled(target)[0].options.fp32_precision


def _specialized(target: Any, args: Any, kwargs: Any) -> tuple[CompiledFunction, Any, Bound]:
    compiled, owner = _compiled(target)
    call_args = args if owner is None else (owner, *args)
    with random_states_kept():  # a call would draw seeds of dropout; this is none
        return (compiled, *compiled.specialize(*call_args, **kwargs))


def _compiled(target: Any) -> tuple[CompiledFunction, nn.Module | None]:
    """The compiled function behind a target, and the module whose method it is."""
    if isinstance(target, nn.Module):
        return _method(type(target).forward, is_model=True), target
    owner = getattr(target, "__self__", None)
    if isinstance(owner, nn.Module):
        return _method(getattr(target.__func__, "compiled", target.__func__)), owner
    return (target if isinstance(target, CompiledFunction) else compiled_as(target, Options())), None


def _method(function: Any, is_model: bool = False) -> CompiledFunction:
    if isinstance(function, CompiledFunction):
        return function
    made: CompiledFunction = compiled_as(function, Options())
    made.is_method = True
    made.is_model = is_model
    return made
