"""What of PyG is compiled: the cases of ``coverage_cases.py``, which the tests run and the tables of ``docs/pyg.md`` are generated from.

A case makes a module and the arguments of a call. What is expected of it is part of the case, and the test holds it to that:

- ``GENERIC``: the layer's own ``forward`` is traced;
- ``LOWERING``: what Columba knows of the class is traced in its place;
- ``PARTLY``: some of it runs compiled, some in PyTorch, for the reason that is given;
- ``PYTORCH``: it runs as it was, for the reason that is given;
- ``NOT_RUN``: it needs what is not installed here.

    python -m tests.frontend.pyg.coverage [NAME ...]     prints what is found of them
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import columba
from columba.frontend.pyg import lowering_of
from tests.compared import COMPILED, IN_PART, NOT_COMPILED, compare, what_runs

GENERIC, LOWERING, PARTLY, PYTORCH, NOT_RUN = "generic", "lowering", "partly", "PyTorch", "not run"

LAYERS, OTHERS = "layers", "others"


@dataclass(frozen=True)
class Inputs:
    """A graph with isolated nodes, self-loops, repeated edges and a relation that does not occur, and features of all kinds."""

    nodes: int = 10
    edges: int = 24
    features: int = 4
    relations: int = 3
    graphs: int = 3
    dtype: torch.dtype = torch.float64

    def _normal(self, seed: int, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(self.dtype)

    def _uniform(self, seed: int, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(self.dtype)

    def _integers(self, seed: int, most: int, *shape: int) -> Tensor:
        return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(seed))

    @functools.cached_property
    def x(self) -> Tensor:
        return self._normal(1, self.nodes, self.features)

    @functools.cached_property
    def x_0(self) -> Tensor:
        return self._normal(2, self.nodes, self.features)

    @functools.cached_property
    def history(self) -> Tensor:
        return self._normal(3, self.nodes, 3, self.features)

    @functools.cached_property
    def edge_index(self) -> Tensor:
        found = self._integers(4, self.nodes - 1, 2, self.edges)
        found[:, 0] = found[:, 1]  # twice
        found[1, 2] = found[0, 2]  # a self-loop
        return found

    @functools.cached_property
    def edge_type(self) -> Tensor:
        return self._integers(5, self.relations - 1, self.edges).sort().values

    @functools.cached_property
    def edge_weight(self) -> Tensor:
        return self._uniform(6, self.edges)

    @functools.cached_property
    def edge_attr(self) -> Tensor:
        return self._normal(7, self.edges, 3)

    @functools.cached_property
    def pseudo(self) -> Tensor:
        """Pseudo-coordinates of the edges."""
        return self._uniform(8, self.edges, 2)

    @functools.cached_property
    def node_type(self) -> Tensor:
        return self._integers(9, 2, self.nodes)

    @functools.cached_property
    def pos(self) -> Tensor:
        return self._normal(10, self.nodes, 3)

    @functools.cached_property
    def normal(self) -> Tensor:
        return self._normal(11, self.nodes, 3)

    @functools.cached_property
    def batch(self) -> Tensor:
        return self._integers(12, self.graphs, self.nodes).sort().values

    @functools.cached_property
    def edges_in_batch(self) -> Tensor:
        """Edges within the graphs of the batch."""
        src, dst = self.batch[self.edge_index]
        return self.edge_index[:, src == dst]

    @functools.cached_property
    def typed(self) -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
        """Tables of two node types, and edges of three."""
        papers, half = self.nodes * 3 // 5, self.edges // 2
        between = self.edge_index[:, :half].remainder(torch.tensor([[papers], [self.nodes - papers]]))
        return {"paper": self.x[:papers], "author": self.x[papers:]}, {
            ("paper", "written_by", "author"): between,
            ("author", "writes", "paper"): between.flip(0),
            ("paper", "cites", "paper"): self.edge_index[:, half:].remainder(papers),
        }

    def given(self, *names: str) -> tuple[Tensor, ...]:
        return tuple(getattr(self, name) for name in names)


SMALL = Inputs()


Call = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """One class.

    Attributes:
        name: the class, as ``torch_geometric.nn`` calls it, and where there is more than one case of it what it is given.
        table: ``LAYERS`` or ``OTHERS``.
        expected: what becomes of it.
        reason: why it is not compiled, or not all of it.
        make: gives a module and the arguments of a call, for inputs of any size.
    """

    name: str
    table: str
    expected: str
    reason: str
    make: Callable[[Inputs], Call]


CASES: dict[str, Case] = {}


def case(name: str, expected: str, reason: str = "", table: str = LAYERS) -> Callable[[Callable[[Inputs], Call]], None]:
    """Registers a function that makes a module and arguments as a case."""
    if (expected in (GENERIC, LOWERING)) != (not reason):
        raise ValueError(f"{name}: what is not compiled, and nothing else, has a reason")

    def register(make: Callable[[Inputs], Call]) -> None:
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, table, expected, reason, make)

    return register


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """All cases in the order in which they are written."""
    importlib.import_module("tests.frontend.pyg.coverage_cases")
    return tuple(CASES.values())


def made(one: Case, inputs: Inputs = SMALL) -> Call:
    """The module and the arguments of a call."""
    torch.manual_seed(11)
    module, args = one.make(inputs)
    return module.to(inputs.dtype), args


def found(one: Case) -> tuple[str, str]:
    """What becomes of a case, and why the rest is not compiled, after its call was compared with the one uncompiled."""
    module, args = made(one)
    comparison = compare(functools.partial(columba.compile, backend="torch"), module, *args)
    assert comparison.compiled is not None, "draws random numbers"
    outcome, why = what_runs(comparison.compiled, comparison.args, comparison.kwargs)
    route = GENERIC if lowering_of(type(module)) is None else LOWERING
    return {COMPILED: route, IN_PART: PARTLY, NOT_COMPILED: PYTORCH}[outcome], why


def table(name: str) -> str:
    """One of the tables of ``docs/pyg.md``."""
    rows = ["| class | runs | |", "|---|---|---|"]
    rows += [f"| `{one.name}` | {one.expected} | {one.reason} |" for one in all_cases() if one.table == name]
    return "\n".join(rows) + "\n"


def main(names: Sequence[str]) -> None:
    for one in all_cases():
        if one.expected == NOT_RUN or (names and one.name not in names):
            continue
        try:
            outcome, why = found(one)
        except Exception as e:
            outcome, why = "WRONG", f"{type(e).__name__}: {e}"
        print(f"{one.name:24} {outcome}{why and f'{chr(10)}      {why}'}", flush=True)


if __name__ == "__main__":
    from tests.frontend.pyg import coverage

    coverage.main(sys.argv[1:])
