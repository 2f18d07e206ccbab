"""What surrounds a layer at work: compiling it, calling it on a graph so small that only the call is left, preparing a graph for it."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import columba
from benchmarks.cases import LAYERS, TITLES, Case, load_graph, make_input, make_layer
from benchmarks.markdown import table
from benchmarks.peers import build_peer
from benchmarks.records import COLUMBA, MODES, NAMES, Overhead
from columba import Graph, datasets

ROOT = Path(__file__).resolve().parents[1]
TORCH_COMPILE = "compact+compile"
PARTS = ("first-call", "small-call", "preparation")
SMALL = datasets.Statistics(nodes=34, edges=156, relations=4, node_types=2)
SMALL_FEATURES = 16
STARTS = 3
"""New processes that find the caches as one before left them; the median counts."""
ROUNDS, CALLS = 40, 25
"""Interleaved rounds of each kind of call, and calls in each."""
GRAPHS = 5
"""New graphs that are prepared; the median counts."""


# ------------------------------------------------------------------------------------------------ first calls


def first_calls(layer: str, mode: str, peers: Sequence[str], graph: str, patience: float) -> Iterator[Overhead]:
    """The first call in a new process with empty caches, and in others with what that one left there."""
    case = Case(layer, graph)
    for peer in peers:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            cold = _start(peer, case, mode, Path(folder), patience)
            yield cold
            if cold.error:
                continue
            warm = [_start(peer, case, mode, Path(folder), patience) for _ in range(STARTS if peer == COLUMBA else 1)]
            middle = sorted(warm, key=lambda o: o.seconds)[len(warm) // 2]
            yield dataclasses.replace(middle, state="cached")


def _start(peer: str, case: Case, mode: str, folder: Path, patience: float) -> Overhead:
    """Runs :mod:`benchmarks.startup` with its caches in ``folder``."""
    found = Overhead("first call", case.layer, mode, peer, 0.0, graph=case.graph, state="cold")
    caches = {
        "COLUMBA_CACHE_DIR": str(folder / "columba"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    command = [sys.executable, "-m", "benchmarks.startup", peer, json.dumps(dataclasses.asdict(case)), mode]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | caches, capture_output=True, text=True, timeout=patience, check=True
        )
    except subprocess.TimeoutExpired:
        return dataclasses.replace(found, seconds=patience, at_least=True, error=f"took more than {patience:.0f} s")
    except subprocess.CalledProcessError as e:
        lines = e.stderr.strip().splitlines()
        return dataclasses.replace(found, error=lines[-1][:200] if lines else f"ended with status {e.returncode}")
    return dataclasses.replace(found, seconds=json.loads(done.stdout.splitlines()[-1])["first"])


# ------------------------------------------------------------------------------------------------ small calls


def small_calls(layer: str) -> Iterator[Overhead]:
    """A call on a graph of 34 nodes beside ten small matrix products in PyTorch, in alternation; medians."""
    graph = datasets.synthetic(SMALL).graph
    case = Case(layer, "34 nodes", features=SMALL_FEATURES)
    call = build_peer(COLUMBA, case, make_layer(case, graph), graph).call
    x = make_input(case, graph)
    w = torch.randn(SMALL_FEATURES, SMALL_FEATURES)

    def ten() -> None:
        for _ in range(10):
            x @ w

    with torch.no_grad():
        ours, theirs = _alternate(lambda: call(x), ten)
    yield Overhead("small call", layer, "infer", COLUMBA, ours, graph=case.graph, beside=theirs)
    leaf, weight = x.clone().requires_grad_(), w.clone().requires_grad_()
    out_grad = torch.ones_like(x)

    def ten_with_gradients() -> None:
        y: Tensor = leaf
        for _ in range(10):
            y = y @ weight
        y.backward(out_grad)

    ours, theirs = _alternate(lambda: call(leaf).backward(out_grad), ten_with_gradients)
    yield Overhead("small call", layer, "train", COLUMBA, ours, graph=case.graph, beside=theirs)


def _alternate(*calls: Callable[[], object]) -> list[float]:
    """Seconds a call: the median of rounds, those of all calls interleaved."""
    times: list[list[float]] = [[] for _ in calls]
    for n in range(ROUNDS + 2):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            if n >= 2:
                found.append((time.perf_counter() - start) / CALLS)
    return [statistics.median(found) for found in times]


# ------------------------------------------------------------------------------------------------ preparation


def preparation(layer: str, graph: str) -> Overhead:
    """What the first training step on a new graph takes beyond later ones, kernels being built: index arrays, the choice of a variant."""
    case = Case(layer, graph)
    known = load_graph(graph)
    compiled = columba.compile(make_layer(case, known), backend="cpp")
    x = make_input(case, known).requires_grad_()
    out_grad = torch.randn(known.num_nodes, case.features)

    def step(on: Graph) -> float:
        start = time.perf_counter()
        compiled(x, on).backward(out_grad)
        return time.perf_counter() - start

    step(known)
    first, later = [], []
    for _ in range(GRAPHS):
        new = Graph(
            known.edge_index.clone(),
            known.edge_type.clone(),
            num_nodes=known.num_nodes,
            num_relations=known.num_relations,
            node_type=known.node_type,
            num_node_types=known.num_node_types,
        )
        first.append(step(new))
        later += [step(new) for _ in range(4)][1:]
    usual = statistics.median(later)
    taken = statistics.median(first) - usual
    return Overhead("preparation", layer, "train", COLUMBA, taken, graph=graph, beside=usual)


# ------------------------------------------------------------------------------------------------ all of them


def measure_overheads(
    parts: Sequence[str], layers: Sequence[str], modes: Sequence[str], peers: Sequence[str], graph: str, patience: float
) -> Iterator[Overhead]:
    """Everything asked for, one by one; ``graph`` is compiled for, and FB15k-237 is prepared."""
    for layer in layers:
        if "first-call" in parts:
            for mode in modes:
                yield from first_calls(layer, mode, peers, graph, patience)
        if "small-call" in parts:
            yield from small_calls(layer)
        if "preparation" in parts:
            yield preparation(layer, "fb15k237" if graph != "tiny" else graph)


def overheads_report(overheads: Sequence[Overhead]) -> str:
    """A table for each kind, of the last figures."""
    last = {(o.what, o.layer, o.mode, o.peer, o.graph, o.state): o for o in overheads}
    parts = []
    for what, render in (("first call", _first_table), ("small call", _small_table), ("preparation", _prepare_table)):
        found = [o for o in last.values() if o.what == what]
        if found:
            parts.append(render(sorted(found, key=lambda o: (LAYERS.index(o.layer), MODES.index(o.mode)))))
    return "\n\n".join(parts) or "Not measured."


def _first_table(found: Sequence[Overhead]) -> str:
    by = {(o.layer, o.mode, o.graph, o.peer, o.state): o for o in found}
    columns = [(COLUMBA, "cold"), (TORCH_COMPILE, "cold"), (COLUMBA, "cached"), (TORCH_COMPILE, "cached")]
    rows = []
    for layer, mode, graph in dict.fromkeys((o.layer, o.mode, o.graph) for o in found):
        cells = [by.get((layer, mode, graph, *c)) for c in columns]
        ours, theirs = cells[:2]
        known = ours is not None and theirs is not None and ours.seconds and theirs.seconds
        ratio = f"{'>' if theirs.at_least else ''}{theirs.seconds / ours.seconds:.1f}" if known else "-"
        rows.append(
            [
                f"{TITLES[layer]}, {NAMES[mode]}, {TITLES.get(graph, graph)}",
                *map(_seconds, cells[:2]),
                ratio,
                *map(_seconds, cells[2:]),
            ]
        )
    head = [
        "first call in a new process, s",
        "Columba, cold",
        "`torch.compile`, cold",
        "ratio",
        "Columba, cached",
        "`torch.compile`, cached",
    ]
    return table(head, rows)


def _seconds(o: Overhead | None) -> str:
    if o is None or not o.seconds:
        return "-"
    return f"{'>' if o.at_least else ''}{o.seconds:.2f}"


def _small_table(found: Sequence[Overhead]) -> str:
    rows = [
        [
            f"{TITLES[o.layer]}, {NAMES[o.mode]}",
            f"{o.seconds * 1e6:.0f}",
            f"{o.beside * 1e6:.0f}",
            f"{o.seconds / o.beside:.2f}",
        ]
        for o in found
    ]
    return table(
        ["a call on 34 nodes and 156 edges, µs", "Columba", "ten products in PyTorch, 34 by 16 by 16", "ratio"], rows
    )


def _prepare_table(found: Sequence[Overhead]) -> str:
    rows = [
        [
            f"{TITLES[o.layer]}, {TITLES.get(o.graph, o.graph)}",
            f"{o.seconds * 1e3:.1f}",
            f"{o.beside * 1e3:.1f}",
            f"{o.seconds / o.beside:.2f}",
        ]
        for o in found
    ]
    return table(["preparing a graph for training, ms", "preparation", "one training step", "ratio"], rows)
