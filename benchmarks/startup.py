"""One first call, in a process of its own: ``python -m benchmarks.startup PEER CASE MODE`` prints what it takes, as JSON.

Imports, reading the graph, and the one-second calibration of the cost model's rates come before and are told apart; the call includes
everything else: tracing, optimizing, building kernels or finding them in the cache, index arrays. Imports are those of PyTorch too that it
puts off until the first ``backward(gradient)`` of a process, whatever made the tensor (sympy's, half a second).
"""

from __future__ import annotations

import json
import sys
import time

START = time.perf_counter()

# The imports are timed: they stand after the clock (E402).
import torch  # noqa: E402

from benchmarks.cases import Case, load_graph, make_input, make_layer  # noqa: E402
from benchmarks.peers import build_peer  # noqa: E402
from benchmarks.records import COLUMBA  # noqa: E402
from columba.selection.rates import machine_rates  # noqa: E402


def main(peer: str, case: Case, mode: str) -> dict[str, float]:
    torch.zeros(1, requires_grad=True).backward(torch.ones(1))
    seconds = {"imports": time.perf_counter() - START}
    graph = load_graph(case.graph)
    layer = make_layer(case, graph)
    x = make_input(case, graph).requires_grad_(mode == "train")
    out_grad = torch.randn(graph.num_nodes, case.features)
    if peer == COLUMBA:
        start = time.perf_counter()
        machine_rates()
        seconds["calibration"] = time.perf_counter() - start
        start = time.perf_counter()  # to call columba.compile is part of compiling
        call = build_peer(peer, case, layer, graph).call
    else:
        call = build_peer(
            peer, case, layer, graph
        ).call  # a hand-written layer sorts its edges here, which is not compiling
        start = time.perf_counter()

    def run() -> None:
        with torch.set_grad_enabled(mode == "train"):
            out = call(x)
            if mode == "train":
                out.backward(out_grad)

    run()
    seconds["first"] = time.perf_counter() - start
    start = time.perf_counter()
    run()
    seconds["second"] = time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Case(**json.loads(sys.argv[2])), sys.argv[3])))
