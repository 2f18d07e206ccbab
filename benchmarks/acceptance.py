"""The stages of ``tools/gpu_acceptance.py``, each in processes of its own: ``python -m benchmarks.acceptance STAGE FILE``.

A line of JSON is appended to FILE when an item is begun and when it is done, so that what a process came to is known however it ends.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import columba
from benchmarks import device as devices
from benchmarks.cases import TINY, Case, make_input, make_layer
from benchmarks.measure import compare
from benchmarks.peers import build_peer
from benchmarks.worker import fingerprint, limits
from columba import Graph

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

Measured = tuple[str, str, dict[str, Any]]
"""A line of a table: which table, what, and the values by column."""

Item = tuple[str, Callable[[], "Sequence[Measured] | None"]]
"""What is done, and how: gives measurements, or None where something was right; raises where it was not."""


class Skipped(Exception):
    """An item does not apply here; the message says why."""


@dataclass(frozen=True)
class Run:
    """Where stages run, and how much of them."""

    device: str
    smallest: bool

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def where(self) -> str:
        """The device as PyTorch calls it; CPU tensors pass for those of a GPU that is not there."""
        return "cuda" if self.is_gpu else "cpu"

    @property
    def computes(self) -> bool:
        """Whether kernels compute anything."""
        return self.device != "stand-in"

    def matrix_device(self) -> Any:
        from triton_matrix import INTERPRETED, Device

        return Device("cuda", devices.architecture()) if self.is_gpu else INTERPRETED


# ------------------------------------------------------------------------------------------------ what it is, and does


def device(run: Run) -> Iterator[Item]:
    """Names and versions; rates of products and of memory, and what a launch takes."""

    def about() -> Sequence[Measured]:
        return [("about", name, {"": value}) for name, value in devices.environment(run.where).items()]

    def rates() -> Sequence[Measured]:
        found = limits(run.where)
        measured = [("rates", "float32 products, Tflop/s", {"": found["flops"] / 1e12})]
        measured.append(("rates", "reading memory, GB/s", {"": found["bandwidth"] / 1e9}))
        return measured

    def narrow() -> Sequence[Measured]:
        side = 8192 if run.is_gpu else 512
        found = []
        for dtype in (torch.float16, torch.bfloat16):
            a = torch.randn(side, side, device=run.where).to(dtype)
            seconds = min(_seconds(lambda a=a: a @ a, run) for _ in range(5))
            found.append(("rates", f"{str(dtype)[6:]} products, Tflop/s", {"": 2 * side**3 / seconds / 1e12}))
        return found

    def launches() -> Sequence[Measured]:
        x, n = torch.ones(32, device=run.where), 200
        seconds = min(_seconds(lambda: [x.add_(1) for _ in range(n)], run) for _ in range(5))
        return [("rates", "a small operation of PyTorch, µs", {"": seconds / n * 1e6})]

    yield from (("about", about), ("rates", rates), ("products in 16 bits", narrow), ("launches", launches))


# ------------------------------------------------------------------------------------------------ whether results are right


PRECISIONS = (
    (torch.float32, "ieee"),
    (torch.float32, "tf32"),
    (torch.float32, "tf32x3"),
    (torch.bfloat16, None),
    (torch.float16, None),
)
"""Of parameters and inputs, and how products of float32 are computed."""


def checks(run: Run) -> Iterator[Item]:
    """What the compiler does at the first use of a program on a GPU: all kernels beside a reference in float64, in another process."""
    layers = LAYERS[:1] if run.smallest else LAYERS
    for layer, heads in layers:
        for dtype, precision in PRECISIONS[:1] if run.smallest else PRECISIONS:
            what = f"{layer} x{heads} {str(dtype)[6:]} {precision or ''}".rstrip()
            check = functools.partial(_check, run, layer, heads, dtype, precision)
            yield what, functools.partial(_computing, run, check)


def _check(run: Run, layer: str, heads: int, dtype: torch.dtype, precision: str | None) -> None:
    """All plans of a training step among which graphs choose."""
    from dataclasses import replace

    from columba.codegen.triton import emit
    from columba.inspection.explain import variants_for
    from columba.nn.samples import sample
    from columba.runtime.dtypes import ir_dtype
    from columba.runtime.self_check.process import check
    from columba.runtime.self_check.verdicts import Subject

    model, x, graph = sample(layer, 16 if not run.is_gpu else 64, heads, dtype)
    variants, _ = variants_for(model, x, graph)
    for name in variants.names()[: 1 if run.smallest else None]:
        planned = replace(variants.planned(name), precision=precision)
        module = emit(planned.plans, planned.schedules)
        subject = Subject(planned, module, ir_dtype(graph.index_dtype), torch.device(run.where))
        verdict = check(subject.job(subject.precision))
        if not verdict.passed:
            raise AssertionError(f"{name}: {verdict.kernel}: {verdict.why}")


def matrix(run: Run) -> Iterator[Item]:
    """The numeric matrix of the tests: a few cases of every kind first, then those that cover all pairs of factors."""
    from triton_matrix import QUICK, check_case, covering
    from triton_matrix import TINY as ALL

    names = ("hub",) if run.smallest else ALL
    for case in QUICK[:1] if run.smallest else (*QUICK, *covering()):
        check = functools.partial(check_case, case, run.matrix_device(), names)
        yield str(case), functools.partial(_computing, run, check)


def hubs(run: Run) -> Iterator[Item]:
    """Layers on a graph half of whose edges lead to one node, and a quarter from one."""
    from triton_matrix import PASSES, PROGRAMS, Pair

    nodes, edges = (2000, 100_000) if run.is_gpu else (40, 700)
    size = 64 if run.is_gpu else 7

    def check(name: str, heads: int, passes: str) -> None:
        pair = Pair(PROGRAMS[name], size, heads, torch.float32, run.matrix_device())
        pair.check(columba.compile(pair.layer, backend="triton", passes=passes), hub_graph(nodes, edges))

    for name, heads in (("rgcn", 1), ("rgat", 1), ("hgt", 1), ("rgat", 4), ("hgt", 4)):
        for passes in PASSES:
            how = "aggregated" if passes.startswith("aggregate_first") else "pairs"
            call = functools.partial(_computing, run, functools.partial(check, name, heads, passes))
            yield f"{name} {heads}x{size} {how}, {edges} edges", call
            if run.smallest:
                return


def hub_graph(nodes: int, edges: int) -> Graph:
    """Node 1 has half of the edges, node 2 is the source of a quarter; the last relation and the last node type are empty."""
    from eager_graphs import NODE_TYPES, RELATIONS

    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(0, nodes, (2, edges), generator=generator)
    ends[1, : edges // 2] = 1
    ends[0, edges // 2 : edges // 2 + edges // 4] = 2
    return Graph(
        ends,
        torch.randint(0, RELATIONS - 1, (edges,), generator=generator),
        num_nodes=nodes,
        num_relations=RELATIONS,
        node_type=torch.arange(nodes) % (NODE_TYPES - 1),
        num_node_types=NODE_TYPES,
    )


def streams(run: Run) -> Iterator[Item]:
    """What only a GPU can show."""

    def check(name: str, program: str) -> None:
        if not run.is_gpu:
            raise Skipped("needs a GPU")
        import device_checks

        if name == "check_the_second_device" and torch.cuda.device_count() < 2:
            raise Skipped("there is one GPU")
        getattr(device_checks, name)(program, run.matrix_device())

    for name in CHECKS:
        for program in ("rgat",) if run.smallest or name not in CHECKS[1:3] else ("rgcn", "rgat", "hgt"):
            yield f"{name[6:].replace('_', ' ')}, {program}", functools.partial(check, name, program)


CHECKS = (
    "check_no_synchronization",
    "check_cuda_graphs",
    "check_replays",
    "check_streams",
    "check_the_second_device",
)


def _computing(run: Run, check: Callable[[], object]) -> None:
    if not run.computes:
        raise Skipped("nothing is computed here")
    check()


# ------------------------------------------------------------------------------------------------ how long it takes

GRAPHS = (("fb15k", 1.0), ("am", 0.5), ("mag", 0.25))
"""Published statistics, and how much of the graph is made."""

LAYERS = (("rgcn", 1), ("rgat", 1), ("hgt", 1), ("rgat", 4), ("hgt", 4))
"""Layers and heads."""

TURNS, RUNS = 7, 3
"""Turns of each peer, and how often it runs in each."""


def times(run: Run) -> Iterator[Item]:
    """Layers of 64 features beside compact hand-written ones and PyG's, kernel by kernel; then beside ``torch.compile``."""
    graphs = ((TINY, 1.0),) if run.smallest or not run.is_gpu else GRAPHS
    layers = LAYERS[:1] if run.smallest else LAYERS
    size = 64 if run.is_gpu else 16
    cases = [(Case(layer, name, size, heads), scale) for name, scale in graphs for layer, heads in layers]
    for case, scale in cases:
        yield f"{case}", functools.partial(_beside, run, case, scale, ("compact", "pyg"))
        yield f"{case}, kernels", functools.partial(_kernels, run, case, scale)
    for case, scale in cases:
        if run.is_gpu:
            yield f"{case}, torch.compile", functools.partial(_beside, run, case, scale, ("compact+compile",))


@functools.lru_cache(maxsize=len(GRAPHS))
def _graph(name: str, scale: float, where: str) -> Graph:
    if name == TINY:
        made = columba.datasets.synthetic(columba.datasets.Statistics(60, 400, 7, 3))
    else:
        made = columba.datasets.synthetic(name, scale=scale)
    return made.graph.to(where)


@functools.lru_cache(maxsize=1)
def _limits(where: str) -> dict[str, float]:
    return limits(where)


@dataclass
class _Peer:
    """A layer with its input and a gradient of its output."""

    call: Callable[[Tensor], Tensor]
    leaves: Sequence[Tensor]
    x: Tensor
    direction: Tensor

    def infer(self) -> Tensor:
        with torch.no_grad():
            return self.call(self.x)

    def train(self) -> Tensor:
        for leaf in self.leaves:
            leaf.grad = None
        out = self.call(self.x)
        out.backward(self.direction)
        return out

    def prints(self, parameters: Sequence[nn.Parameter]) -> list[list[float]]:
        """What pins down the output and all gradients."""
        out = self.train().detach()
        tensors = [out, *(leaf.grad for leaf in (self.x, *parameters))]
        return [[] if t is None else fingerprint(t) for t in tensors]


def _columba(run: Run, case: Case, scale: float, *, cuda_graphs: bool = False) -> tuple[nn.Module, Graph, _Peer]:
    graph = _graph(case.graph, scale, run.where)
    layer = make_layer(case, graph).to(run.where)
    x = make_input(case, graph).to(run.where).requires_grad_()
    direction = torch.randn(graph.num_nodes, case.features, generator=torch.Generator().manual_seed(2)).to(run.where)
    compiled = columba.compile(layer, backend="triton", cuda_graphs=cuda_graphs)
    return layer, graph, _Peer(lambda x: compiled(x, graph), [x, *layer.parameters()], x, direction)


def _beside(run: Run, case: Case, scale: float, others: Sequence[str]) -> Sequence[Measured]:
    """Milliseconds of all, in turns; results and gradients are compared before."""
    layer, graph, ours = _columba(run, case, scale)
    start = time.perf_counter()
    prints = ours.prints(list(layer.parameters()))
    first = time.perf_counter() - start
    _, _, replayed = _columba(run, case, scale, cuda_graphs=True)
    peers, notes = {"columba": ours, "CUDA graphs": replayed}, {}
    for name in others:
        try:
            with torch.device(run.where):
                built = build_peer(name, case, layer, graph)
            peer = _Peer(built.call, [ours.x, *built.parameters], ours.x, ours.direction)
            found = peer.prints(list(layer.parameters()))
            if built.comparable and run.computes:
                compare(found, prints)
            peers[name] = peer
        except Exception as e:  # a peer's own troubles, which the report names, end nothing of ours
            if name == "compact":
                raise
            notes[name] = f"{type(e).__name__}: {e}".splitlines()[0][:120]
    values: dict[str, Any] = {"first call and step, s": first}
    for mode in ("infer", "train"):
        for name, seconds in _turns({name: getattr(p, mode) for name, p in peers.items()}, run).items():
            values[f"{name}, {mode}"] = seconds * 1e3
    values |= {f"{name}, infer": why for name, why in notes.items()}
    if run.is_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        ours.train()
        torch.cuda.synchronize()
        values["peak, MB"] = (torch.cuda.max_memory_allocated() - before) / 1e6
    return [("ms", f"{case}", values)]


def _turns(calls: dict[str, Callable[[], object]], run: Run) -> dict[str, float]:
    """The median of the runs of each, in seconds; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    turns, runs = (TURNS, RUNS) if run.is_gpu else (1, 1)
    for _ in range(turns):
        for name, call in calls.items():
            for _ in range(3 if run.is_gpu else 0):
                call()
            found[name] += [_seconds(call, run) for _ in range(runs)]
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _seconds(call: Callable[[], object], run: Run) -> float:
    """One run, until the device is done."""
    devices.wait_for(run.where)
    start = time.perf_counter()
    call()
    devices.wait_for(run.where)
    return time.perf_counter() - start


def _kernels(run: Run, case: Case, scale: float) -> Sequence[Measured]:
    """Microseconds of every kernel, beside its arithmetic at the rate of float32 products and its bytes at that of reading memory."""
    from columba.codegen.triton import emit
    from columba.inspection.roofline import plan_costs
    from columba.runtime.executable import kernel_times

    layer, graph, ours = _columba(run, case, scale)
    if run.is_gpu:
        for _ in range(3):
            ours.train()
    with kernel_times() as found:
        for _ in range(10 if run.is_gpu else 1):
            ours.train()
    plans = columba.explain(columba.compile(layer, backend="triton"), ours.x, graph).compilation.plans
    rates = _limits(run.where)
    module = emit(plans)
    of = {(plan.name, step.kernel.name): step.of for plan in module.plans for step in module.steps[plan.name]}
    least: dict[tuple[str, str], float] = {}
    for cost in plan_costs(plans, graph.counts()):
        key = (cost.plan, of[cost.plan, cost.kernel])
        least[key] = least.get(key, 0.0) + max(cost.flops / rates["flops"], cost.bytes / rates["bandwidth"])
    rows: list[Measured] = []
    total = [0.0, 0.0]
    for plan, kernels in found.items():
        for kernel, seconds in kernels.items():
            took, limit = statistics.median(seconds), least.get((plan, kernel), 0.0)
            total = [total[0] + took, total[1] + limit]
            rows.append(_kernel_row(case, f"{plan} {kernel}", took, limit))
    return [*rows, _kernel_row(case, "all kernels", *total)]


def _kernel_row(case: Case, what: str, took: float, limit: float) -> Measured:
    values = {"µs": took * 1e6, "at the limits, µs": limit * 1e6, "of the limits": limit / took if took else 0.0}
    return f"kernels of {case}", what, values


# ------------------------------------------------------------------------------------------------ running

STAGES: dict[str, Callable[[Run], Iterator[Item]]] = {
    "device": device,
    "checks": checks,
    "matrix": matrix,
    "hubs": hubs,
    "streams": streams,
    "times": times,
}

POISONED = ("CUDA error", "HIP error", "illegal memory access", "device-side assert", "unspecified launch failure")
"""In messages after which a process can use its GPU no more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--worker", default="0/1", help="this process's number and how many there are")
    parser.add_argument(
        "--after", type=int, default=0, help="leave out as many of its items, which another process began"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="begin nothing after so many")
    parser.add_argument("--smallest", action="store_true")
    given = parser.parse_args()
    number, workers = map(int, given.worker.split("/"))
    deadline = time.monotonic() + given.seconds
    if given.device == "stand-in":
        import gpu_stand_in

        gpu_stand_in.install(_Patch())
    run = Run(given.device, given.smallest)
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    with given.file.open("a", encoding="utf-8", buffering=1) as out:
        mine = [item for n, item in enumerate(STAGES[given.stage](run)) if n % workers == number][given.after :]
        for what, call in mine:
            if time.monotonic() > deadline:
                _tell(out, "done", what, {"outcome": "unfinished", "why": "no time was left"})
                continue
            _tell(out, "begun", what, {})
            _do(out, what, call)


class _Patch:
    """For the rest of the process."""

    def setattr(self, target: Any, name: str, value: Any, raising: bool = True) -> None:
        setattr(target, name, value)


def _tell(out: Any, line: str, what: str, more: dict[str, Any]) -> None:
    print(json.dumps({"line": line, "what": what, **more}), file=out, flush=True)


def _do(out: Any, what: str, call: Callable[[], Sequence[Measured] | None]) -> None:
    start = time.perf_counter()
    outcome: dict[str, Any] = {"outcome": "passed"}
    measured: Sequence[Measured] = ()
    poisoned = False
    try:
        measured = call() or ()
    except Skipped as e:
        outcome = {"outcome": "skipped", "why": str(e)}
    except Exception as e:  # whatever it is, it is what the report has to say
        traceback.print_exc()
        outcome = {"outcome": "failed", "why": f"{type(e).__name__}: {e}"[:2000]}
        poisoned = any(word in str(e) for word in POISONED)
    for kind, name, values in measured:
        _tell(out, "done", name, {"outcome": "measured", "kind": kind, "values": values})
    _tell(out, "done", what, {**outcome, "seconds": round(time.perf_counter() - start, 3)})
    if poisoned:
        sys.exit(f"{what}: the GPU cannot be used any more by this process")


if __name__ == "__main__":
    main()
