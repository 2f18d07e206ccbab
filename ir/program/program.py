"""A level-1 program: named inputs, named results, and the operations between them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from columba.ir.node import structurally_equal, topological
from columba.ir.program.ops import Input, Value
from columba.ir.program.printing import print_operation

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class Program:
    """``results[i]`` is called ``result_names[i]``; ``inputs`` may hold inputs that no result needs.

    Two programs are equal if they compute the same results from the same inputs by the same operations.
    """

    name: str
    inputs: tuple[Input, ...]
    results: tuple[Value, ...]
    result_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.results) != len(self.result_names):
            raise ValueError(f"{len(self.results)} results but {len(self.result_names)} names")
        for kind, names in (("input", [i.name for i in self.inputs]), ("result", list(self.result_names))):
            if len(set(names)) != len(names):
                raise ValueError(f"program {self.name}: {kind} names are not distinct: {names}")

    @functools.cached_property
    def body(self) -> tuple[Value, ...]:
        """All operations that the results need, operands first, inputs included."""
        return tuple(node for node in topological(self.results) if isinstance(node, Value))

    def with_results(self, results: Sequence[Value]) -> Program:
        """The same program computing its results another way; itself if nothing changed."""
        if all(a is b for a, b in zip(self.results, results, strict=True)):
            return self
        return Program(self.name, self.inputs, tuple(results), self.result_names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        return (
            self.name == other.name
            and self.result_names == other.result_names
            and structurally_equal(self.inputs, other.inputs)
            and structurally_equal(self.results, other.results)
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        """The text of the program. Values are numbered afresh, so equal programs print alike."""
        names: dict[Value, str] = {i: f"%{i.name}" for i in self.inputs}
        params = ", ".join(f"%{i.name}: {i.type}" for i in self.inputs)
        lines = [f"program {self.name}({params}) {{"]
        count = 0
        for value in self.body:
            if value in names:
                continue
            if isinstance(value, Input):
                raise ValueError(f"input %{value.name} is used but not a parameter of program {self.name}")
            names[value] = f"%{count}"
            count += 1
            lines.append(f"  {names[value]}: {value.type} = {print_operation(value, names)}")
        results = ", ".join(f"{n}={names[v]}" for n, v in zip(self.result_names, self.results, strict=True))
        return "\n".join([*lines, f"  return {results}", "}"])

    def to_networkx(self) -> nx.MultiDiGraph:
        """The dataflow graph: a node an operation (attributes ``op``, ``type``, ``data``), an edge a use.

        Nodes are numbered as in the text form; results carry their name in ``result``.
        """
        import networkx as nx  # takes long to import

        graph = nx.MultiDiGraph(name=self.name)
        numbers = {value: n for n, value in enumerate(self.body)}
        for value, n in numbers.items():
            graph.add_node(n, op=value.op_name, type=str(value.type), data=value.data)
            for position, operand in enumerate(value.children):
                graph.add_edge(numbers[operand], n, position=position)  # type: ignore[index]
        for name, result in zip(self.result_names, self.results, strict=True):
            graph.nodes[numbers[result]].setdefault("result", []).append(name)
        return graph
