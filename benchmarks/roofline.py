"""The least time that a case can take: its arithmetic at sgemm's rate plus its compulsory bytes at memory's."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cases import Case
from columba import Graph
from columba.ir.spaces import Space

FLOAT = 4


@dataclass(frozen=True)
class Work:
    """Floating-point operations of matrix products, and bytes that have to be read or written once."""

    flops: float
    bytes: float

    def seconds(self, limits: dict[str, float]) -> float:
        return self.flops / limits["flops"] + self.bytes / limits["bandwidth"]


def work(case: Case, graph: Graph, *, training: bool) -> Work:
    """Typed linear maps on the fewest rows that determine them, each row of each tensor moved once.

    RGCN maps the rows of one pair space, the smaller. RGAT maps (source, relation) pairs; scores need only products with folded
    vectors. HGT maps (source, relation) pairs twice and nodes four times. A training step does each product three times: forward,
    for the input's gradient, for the weight's; and moves every tensor and its gradient.
    """
    d = case.features
    nodes, edges = graph.num_nodes, graph.num_edges
    pairs = graph.count(Space.SRC_REL)
    relations = graph.num_relations
    index = 4 * (2 * edges + 2 * pairs)
    match case.layer:
        case "rgcn":
            pairs = min(pairs, graph.count(Space.DST_REL))
            products = 2 * d * d * (pairs + nodes)
            floats = d * (pairs + 2 * nodes) + d * d * (relations + 1)
        case "rgat":
            products = 2 * d * d * pairs
            floats = d * (pairs + 2 * nodes) + d * d * relations + 2 * case.heads * pairs
        case "hgt":
            per_head = d // case.heads
            products = 2 * 2 * d * per_head * pairs + 4 * 2 * d * d * nodes
            floats = d * (2 * pairs + 6 * nodes) + 2 * d * per_head * relations + 4 * d * d * graph.num_node_types
        case _:
            raise ValueError(f"unknown layer {case.layer!r}")
    return Work(3 * products, 2 * FLOAT * floats + 2 * index) if training else Work(products, FLOAT * floats + index)
