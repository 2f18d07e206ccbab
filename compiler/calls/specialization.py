"""One trace of a compiled function, and the kernels that calls of it chose."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from columba.calls.options import Options
from columba.calls.recognize import Matcher
from columba.calls.shortcut import PartRun, Shortcut, shortcut_to
from columba.frontend import Bound, Trace
from columba.gradient.distinct import shares_memory
from columba.gradient.saving import Saving
from columba.ir.program.program import Program
from columba.runtime.backends import CPP, Backend, backend_shown
from columba.runtime.build import BuildError, CompilerNotFound
from columba.runtime.dtypes import ir_dtype, torch_dtype
from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.sorts import start_building_sorts
from columba.runtime.program import Runnable
from columba.runtime.reference import evaluate
from columba.runtime.transforms import wants_gradient
from columba.runtime.warn import warn_once
from columba.selection.variants import Variants
from columba.tuning.lookup import Recorded
from columba.tuning.records import RecordsError

FALLING_BACK = ' Falling back to backend="torch", which is slower.'

_VariantsKey = tuple[tuple[str, ...], tuple[int, ...] | None]
"""The inputs that want gradients, and, where memory is limited, the rows of the graph's spaces."""


class Specialization:
    """One trace, and what was compiled of its parts."""

    def __init__(self, traced: Trace, options: Options) -> None:
        self.trace = traced
        self.match = Matcher(traced)
        self.options = options
        self.kernels = tuple(Kernels(part.program, options) for part in traced.parts)
        self.shortcut: Shortcut | None = None
        self.patience = Cadence()

    def __call__(self, bound: Bound, owner: nn.Module | None) -> Any:
        ran: list[PartRun] = []
        for n, part, inputs in self.trace.runs(bound):
            graph, kernels = bound.graphs[part.graph], self.kernels[n]
            backend = kernels.backend(graph, inputs)
            runnable = None if backend is None else kernels.usable(graph, inputs, backend)
            if backend is None or runnable is None:
                results = self._in_pytorch(part.program, inputs, graph)
            else:
                results = runnable(inputs, graph)
                ran.append(PartRun(runnable, inputs, self._settings(backend)))
            self.trace.finish(part, bound, results)
        if len(ran) == len(self.kernels) and self.patience.is_over(bound.graphs):
            self.shortcut = shortcut_to(self.trace, bound, owner, ran)
        return self.trace.rebuild(bound)

    def _in_pytorch(self, program: Program, inputs: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        with self.trace.plain_torch():
            results = evaluate(program, inputs, graph.structure)
        shared = shares_memory(program)
        return [x.clone() if s else x for x, s in zip(results, shared, strict=True)]

    def _settings(self, backend: Backend) -> Callable[[], Any] | None:
        is_settled = self.options.fp32_precision is not None or not self.options.choice.falls_back
        return None if is_settled else backend.settings()

    # -------------------------------------------------------------------------------------------- the parts of a call

    def met(self, bound: Bound) -> Iterator[tuple[Kernels, Graph, list[Tensor]]]:
        """What each part would run, with its graph and inputs; PyTorch computes what later parts need."""
        for n, part, inputs in self.trace.runs(bound):
            graph = bound.graphs[part.graph]
            yield self.kernels[n], graph, inputs
            if n + 1 == len(self.kernels):
                return
            self.trace.finish(part, bound, self._in_pytorch(part.program, inputs, graph))

    def runnable(self, graph: Graph, inputs: Sequence[Tensor], backend: Backend = CPP) -> Runnable:
        """The kernels of the only part: see :meth:`Kernels.runnable`."""
        (only,) = self.kernels
        return only.runnable(graph, inputs, backend)


class Kernels:
    """What was compiled of one program: for each set of inputs that want gradients, the variants that graphs chose."""

    def __init__(self, program: Program, options: Options) -> None:
        self.program = program
        self.options = options
        self.variants: dict[_VariantsKey, Variants] = {}
        self.runnables: dict[tuple[_VariantsKey, str, torch.dtype, str], Runnable] = {}
        self.recorded: dict[tuple[str, str], Recorded] = {}
        self.lock = threading.RLock()
        self.is_unbuildable = False
        self.dtypes = tuple(torch_dtype(d) for d in dict.fromkeys(v.dtype for v in (*program.inputs, *program.body)))
        self.objections: dict[tuple[Runnable, torch.device, Any], str | None] = {}

    def usable(self, graph: Graph, inputs: Sequence[Tensor], backend: Backend) -> Runnable | None:
        """What runs the call; None where the backend was not asked for by name, and there is no compiler, it failed, or the kernels are
        wrong."""
        falls_back = self.options.choice.falls_back
        if backend is CPP and self.is_unbuildable and falls_back:
            return None
        try:
            runnable = self.runnable(graph, inputs, backend)
        except (CompilerNotFound, BuildError) as e:
            if not falls_back:
                raise
            self.is_unbuildable = isinstance(e, BuildError)  # which takes long to find out
            warn_once(f"columba: {e}{FALLING_BACK}")
            return None
        objection = self._objection(runnable, graph, backend)
        if objection is None:
            return runnable
        what = f"the {backend.name} kernels of {runnable.planned.name} {objection}."
        if not falls_back:
            raise RuntimeError(f'columba: {what} Use backend="torch", or "auto".')
        warn_once(f"columba: {what}{FALLING_BACK}")
        return None

    def _objection(self, runnable: Runnable, graph: Graph, backend: Backend) -> str | None:
        """Why these kernels should not run on the graph's device: asked once for each way to compute."""
        settings = backend.settings()
        if settings is None:
            return None
        key = (runnable, graph.device, settings())
        with self.lock:
            if key not in self.objections:
                by_name = not self.options.choice.falls_back
                dtype = ir_dtype(graph.index_dtype)
                self.objections[key] = backend.objection(
                    runnable.planned, runnable.executable, dtype, graph.device, by_name=by_name
                )
            return self.objections[key]

    def backend(self, graph: Graph, inputs: Sequence[Tensor]) -> Backend | None:
        """Whose kernels run this call, None: PyTorch's; RuntimeError where the backend asked for cannot."""
        choice = self.options.choice
        backend, obstacle = self._wanted(graph, inputs)
        if backend is None or obstacle is None:
            return backend
        if not choice.falls_back:
            raise RuntimeError(f'backend="{choice.name}" {obstacle}; use backend="torch" (or "auto") for such inputs')
        warn_once(f'columba: backend="{backend.name}" {obstacle}.{FALLING_BACK}')
        return None

    def _wanted(self, graph: Graph, inputs: Sequence[Tensor]) -> tuple[Backend | None, str | None]:
        """Whose kernels should run this call, None: PyTorch's; and why they cannot, if so."""
        choice = self.options.choice
        backend = choice.backend(graph.device)
        if backend is None:
            return None, None
        obstacle = backend.obstacle((graph.device, *(x.device for x in inputs)), self.dtypes)
        if obstacle is None and choice.falls_back:
            lack = backend.missing()
            obstacle = None if lack is None else f"needs {lack}"
        return backend, obstacle

    def runs(self, graph: Graph, inputs: Sequence[Tensor]) -> str:
        """What runs this call, in words, as far as is known without building or running kernels."""
        backend, obstacle = self._wanted(graph, inputs)
        if backend is None or obstacle is not None:
            why = "" if backend is None else f': backend="{backend.name}" {obstacle}'
            return f"PyTorch, operation by operation{why}"
        with self.lock:
            _, variants = self._variants(graph, inputs)
            planned = replace(
                variants.planned(self.choice(graph, variants, backend)), precision=self.options.fp32_precision
            )
        by_name = not self.options.choice.falls_back
        standing = backend.standing(planned, ir_dtype(graph.index_dtype), graph.device, by_name=by_name)
        return f"{backend.name} kernels on {graph.device}{standing}"

    def runnable(self, graph: Graph, inputs: Sequence[Tensor], backend: Backend = CPP) -> Runnable:
        """The kernels for these inputs' gradients that are best for this graph, built now if they are not yet."""
        with self.lock:
            key, variants = self._variants(graph, inputs)
            if graph.device.type == "cpu" and not self.runnables:
                start_building_sorts()  # the graph will need them
            name = self.choice(graph, variants, backend)
            found = (key, name, graph.index_dtype, backend.name)
            if found not in self.runnables:
                options = self.options
                planned = replace(
                    variants.planned(name), precision=options.fp32_precision, cuda_graphs=options.cuda_graphs
                )
                self.runnables[found] = Runnable(planned, ir_dtype(graph.index_dtype), backend)
            return self.runnables[found]

    def explain(self, graph: Graph, inputs: Sequence[Tensor]) -> tuple[str, Variants]:
        """The name of the variant that this call runs, and all variants."""
        with self.lock:
            _, variants = self._variants(graph, inputs)
            return self.choice(graph, variants, backend_shown(self.options.backend, graph.device)), variants

    def variants_for(self, graph: Graph, inputs: Sequence[Tensor]) -> Variants:
        """All variants for these inputs' gradients."""
        with self.lock:
            return self._variants(graph, inputs)[1]

    def choice(self, graph: Graph, variants: Variants, backend: Backend) -> str:
        """The variant for a graph, which the graph remembers."""
        chosen: str = graph.keep(f"{variants.key} {backend.name}", lambda: self._choose(graph, variants, backend))
        return chosen

    def _choose(self, graph: Graph, variants: Variants, backend: Backend) -> str:
        """What was tuned for graphs of this size; else the only variant, or the one that the cost model finds cheapest."""
        if self.options.is_open:
            where = (variants.key, backend.name)
            recorded = self.recorded.get(where)
            if recorded is None:
                recorded = self.recorded.setdefault(where, Recorded(variants, backend.name))
            name = recorded.choice(graph)
            if name is None and self.options.autotune:
                from columba.tuning.search import tune_variants  # which most processes never need

                try:
                    tune_variants(variants, graph, backend.name)
                except RecordsError as e:
                    warn_once(f"columba: {e}; nothing is tuned")
                recorded.forget()
                name = recorded.choice(graph)
            if name is not None:
                return name
        names = variants.names()
        return names[0] if len(names) == 1 else variants.choose(graph.counts(), graph.device)

    def _variants(self, graph: Graph, inputs: Sequence[Tensor]) -> tuple[_VariantsKey, Variants]:
        program = self.program
        grad = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        wrt = tuple(i.name for i, x in zip(program.inputs, inputs, strict=True) if grad and wants_gradient(x))
        budget = self.options.memory_budget
        sizes = None if budget is None or not wrt else tuple(graph.counts().values())
        key = (wrt, sizes)
        if key not in self.variants:
            saving = None if sizes is None else Saving(graph.counts(), budget)
            self.variants[key] = Variants(program, wrt, self.options.recipes, saving)
        return key, self.variants[key]


class Cadence:
    """Says when a shortcut is worth making: when graphs come back, and, after each shortcut that later missed, more rarely."""

    def __init__(self) -> None:
        self.graphs: list[weakref.ref[Graph]] = []
        self.calls, self.wait = 0, 1

    def is_over(self, graphs: Sequence[Graph]) -> bool:
        returns = len(self.graphs) == len(graphs) and all(
            known() is graph for known, graph in zip(self.graphs, graphs, strict=True)
        )
        self.graphs = [weakref.ref(graph) for graph in graphs]
        self.calls += 1
        if not returns or self.calls <= self.wait:
            return False
        self.calls, self.wait = 0, min(2 * self.wait, 256)
        return True
