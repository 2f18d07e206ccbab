"""Random functions of plain PyTorch and PyG's utilities that gather and scatter by integer tensors, as text.

Each line computes a table with a row for each node, edge, edge of a second set, or graph, of what is there already. All tables have
:data:`FEATURES` columns, so that any two of one kind can be combined.
"""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FEATURES = 4
ARGUMENTS = "x, e, w, w2, ei, batch, weight, graphs"
"""Features of nodes and of edges, ``[N, F]`` and ``[E, F]``, matrices ``[F, F]`` and ``[2 F, F]``, ``edge_index``, the graph of each
node, a number for each edge, and how many graphs there are."""

COUNTS = {"node": "x.size(0)", "edge": "src.size(0)", "other": "s2.size(0)", "graph": "graphs"}

POINTWISE = (
    *("{a} + {b}", "{a} * {b}", "{a} - {b}", "torch.tanh({a})", "{a}.relu()", "{a} @ w", "torch.sigmoid({a}) * {b}"),
    *("torch.where({a} > 0, {a}, {b})", "F.leaky_relu({a}, 0.2)", "torch.maximum({a}, {b})", "{a} / (1 + {b}.abs())"),
    *(
        "{a}[:, :1] * {b}",
        "torch.cat([{a}, {b}], -1) @ w2",
        "{a}.sum(-1, keepdim=True) + {b}",
        "F.layer_norm({a}, (4,))",
    ),
    *(
        "{a}[:, [3, 2, 1, 0]] + {b}[:, 1:2]",
        "torch.stack([{a}, {b}], -1).max(-1).values",
        "torch.stack([{a}, {b}]).sum(0)",
    ),
    *("torch.einsum('ni,ij->nj', {a}, w)", "{a} / ({a}.norm(dim=-1, keepdim=True) + 1e-3)"),
    *(
        "{a} - {a}.mean(0, keepdim=True)",
        "{a} * {a}.sum(0)",
        "{a} + {a}.mean()",
        "{a}.flip(0) * 1.0",
        "{a}.cumsum(0) * 0.1",
    ),
)
GATHERS = ("{a}[{i}]", "{a}.index_select(0, {i})", "{a}.gather(0, {i}.view(-1, 1).expand(-1, 4))")
SCATTERS = (
    *("x.new_zeros({n}, 4).index_add(0, {i}, {a})", "torch.zeros({n}, 4).index_add_(0, {i}, {a})"),
    *("e.new_zeros({n}, 4).scatter_add_(0, {i}.view(-1, 1).expand_as({a}), {a})",),
    *(f"scatter({{a}}, {{i}}, dim=0, dim_size={{n}}, reduce='{reduce}')" for reduce in ("sum", "mean", "max", "min")),
    *(
        "scatter({a}, {i}, dim=0, dim_size={n} + 2, reduce='sum')[:-2]",
        "scatter({a}, {i}, dim=0, dim_size={n}, reduce='mul').tanh()",
    ),
    *("scatter({a}.view(-1, 2, 2), {i}, dim=0, dim_size={n}, reduce='sum').view(-1, 4)",),
    *(
        f"torch.zeros({{n}}, 4).scatter_reduce(0, {{i}}.view(-1, 1).expand_as({{a}}), {{a}}, '{reduce}', include_self={own})"
        for reduce in ("sum", "mean", "amax", "amin")
        for own in (True, False)
    ),
    "torch.zeros({n}, 4).index_put(({i},), {a}, accumulate=True)",
)
OTHER_EDGES = (
    "add_self_loops(remove_self_loops(ei)[0], num_nodes=x.size(0))[0]", "ei[:, ei[0] <= ei[1]]", "ei.flip(0)", "ei[:, ei[1].argsort()]",
    "ei[:, : ei.size(1) // 2]", "torch.cat([ei, ei.flip(0)], 1)", "ei[:, ::2]",
)  # fmt: skip
NODES = (
    *(
        "{a} / degree({i}, x.size(0), dtype=torch.float64).clamp(min=1).view(-1, 1)",
        "{a} * torch.bincount({i}, minlength=x.size(0)).view(-1, 1)",
    ),
    *("{a} * (batch == batch.max()).to({a}.dtype).unsqueeze(-1)", "torch.cat([{a}, {b}], 0)[: x.size(0)] * 2"),
    *(
        "spmm(torch.sparse_coo_tensor(ei.flip(0), weight, (x.size(0), x.size(0))), {a})",
        "{b}.index_add(0, (batch == 0).nonzero().view(-1), {a}[batch == 0])",
    ),
    *("x.new_zeros(x.size(0), 4).index_add(0, torch.cat([src, dst]), torch.cat([{a}[dst], {a}[src] * 2], 0))",),
    *("scatter(torch.cat([{a}[src], {e}], 0), torch.cat([dst, src]), dim=0, dim_size=x.size(0), reduce='max')",),
    *("{a}.masked_scatter((batch == 0).view(-1, 1).expand_as({a}), {b})",),
)
EDGES = (
    *(
        "{e} * weight.view(-1, 1)",
        "torch.where((src == dst).view(-1, 1), {e}, {f})",
        "{e}.masked_fill((src == dst)[:, None], 0.0)",
    ),
    *(
        "({a}.view(-1, 2, 2)[src] * {b}.view(-1, 2, 2)[dst]).sum(-1).repeat(1, 2)",
        "{e}[torch.arange(src.size(0) - 1, -1, -1)]",
    ),
    *(
        "{e} * softmax(({a}.view(-1, 2, 2)[dst] * {e}.view(-1, 2, 2)).sum(-1), dst, num_nodes=x.size(0)).repeat_interleave(2, 1)",
    ),
    *(
        "torch.einsum('ei,ei->e', {a}[src], {b}[dst]).view(-1, 1) * {e}",
        "{a}[src] * {b}[dst] * {a}[torch.minimum(src, dst)]",
    ),
    *("torch.cat([{e}[: src.size(0) // 2], {a}[src][src.size(0) // 2 :]], 0)",),
    *("torch.cat([{a}[dst][src.size(0) // 2 :].tanh(), {e}[: src.size(0) // 2]], 0)",),
)
PIECES = (
    "[::2]",
    "[1::2]",
    "[:4]",
    "[4:]",
    "[: src.size(0) // 2]",
    "[src.size(0) // 2 :]",
    "[1:-1]",
    "[::3]",
    "[2::4]",
)
WRITES = (
    "{v}[{i}] += 0.5",
    "{v}[:2] = 0",
    "{v}[:, 0] = {b}[:, 1]",
    "{v}.mul_({b})",
    "{v}[batch == 0] = 1.0",
    "{v}.add_(1)",
)


class _Code:
    """A function in the making."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines = ["src, dst = ei[0], ei[1]"]
        self.tables = {"node": ["x"], "edge": ["e"], "other": list[str](), "graph": list[str]()}
        self.indices = {("edge", "node"): ["src", "dst"], ("node", "graph"): ["batch"]}

    def pick(self, rows: str) -> str:
        """A table, more often one of the last."""
        tables = self.tables[rows]
        return self.random.choice(tables[-3:] if self.random.random() < 0.75 else tables)

    def add(self, rows: str, text: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self.tables[rows].append(name)
        return name

    def one_of(self, rows: str, templates: tuple[str, ...], **names: str) -> str:
        """A table of those rows by one of the templates."""
        given = {"i": self.random.choice(["src", "dst"]), "a": self.pick(rows), "b": self.pick(rows), **names}
        return self.add(rows, self.random.choice(templates).format(**given))

    def step(self) -> None:
        kinds = (
            self.pointwise,
            self.gather,
            self.scatter,
            self.softmax,
            self.other_edges,
            self.nodes,
            self.edges,
            self.piece,
            self.write,
        )
        self.random.choices(kinds, weights=(4, 5, 5, 2, 1, 3, 3, 3, 1))[0]()

    def pointwise(self) -> None:
        self.one_of(self.random.choice([rows for rows, tables in self.tables.items() if tables]), POINTWISE)

    def way(self, coarse_has: bool) -> tuple[str, str, str] | None:
        """Fine rows, coarse rows, and integers that lead there, where one of the two has tables."""
        ways = [(*way, i) for way, indices in self.indices.items() for i in indices if self.tables[way[coarse_has]]]
        return self.random.choice(ways) if ways else None

    def gather(self) -> None:
        way = self.way(coarse_has=True)
        if way is not None:
            fine, coarse, i = way
            self.add(fine, self.random.choice(GATHERS).format(a=self.pick(coarse), i=i))

    def scatter(self) -> None:
        way = self.way(coarse_has=False)
        if way is not None:
            fine, coarse, i = way
            self.add(coarse, self.random.choice(SCATTERS).format(a=self.pick(fine), i=i, n=COUNTS[coarse]))

    def softmax(self) -> None:
        way = self.way(coarse_has=False)
        if way is not None:
            fine, coarse, i = way
            self.add(fine, f"softmax({self.pick(fine)}, {i}, num_nodes={COUNTS[coarse]})")

    def other_edges(self) -> None:
        if "s2, d2 = ei2" not in self.lines:
            self.lines += [f"ei2 = {self.random.choice(OTHER_EDGES)}", "s2, d2 = ei2"]
            self.indices["other", "node"] = ["s2", "d2"]
            self.add("other", f"{self.pick('node')}[s2]")

    def nodes(self) -> None:
        self.one_of("node", NODES, e=self.pick("edge"))

    def edges(self) -> None:
        self.one_of("edge", EDGES, e=self.pick("edge"), f=self.pick("edge"), a=self.pick("node"), b=self.pick("node"))

    def piece(self) -> None:
        """Some of the edges are summed, or edges are made of pieces that are written."""
        i, j = self.random.choice(["src", "dst"]), self.random.choice(["src", "dst"])
        a, e, part = self.pick("node"), self.pick("edge"), self.random.choice(PIECES)
        if self.random.random() < 0.4:
            name = self.add("edge", f"torch.{self.random.choice(['empty', 'zeros'])}(src.size(0), 4)")
            self.lines += [f"{name}[0::2] = ({a}[{i}][0::2] @ w).tanh()", f"{name}[1::2] = {a}[{j}[1::2]] + {e}[1::2]"]
            return
        whole = self.random.choice([e, f"{a}[{i}]", f"({a}[{i}] * {e})", f"({a}[{i}] - {e}).abs()"])
        self.add(
            "node",
            self.random.choice(SCATTERS).format(a=f"({whole}{part} * {e}{part})", i=f"{j}{part}", n=COUNTS["node"]),
        )

    def write(self) -> None:
        name = self.add("node", f"{self.pick('node')}.clone()")
        line = self.random.choice(WRITES)
        self.lines.append(line.format(v=name, b=self.pick("node"), i=self.random.choice(["src", "dst"])))


def source(seed: int) -> str:
    """The text of a function ``f`` of :data:`ARGUMENTS`."""
    code = _Code(seed)
    for _ in range(code.random.randint(3, 12)):
        code.step()
    results = [name for tables in code.tables.values() for name in tables[-2:] if name not in ("x", "e")]
    body = "\n    ".join((*code.lines, f"return ({''.join(f'{name}, ' for name in results)})"))
    return f"def f({ARGUMENTS}):\n    {body}\n"


def function(text: str) -> Callable[..., tuple[Tensor, ...]]:
    from torch_geometric import utils

    name = f"<{abs(hash(text))}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "__name__": __name__}
    names |= {
        n: getattr(utils, n) for n in ("add_self_loops", "degree", "remove_self_loops", "scatter", "softmax", "spmm")
    }
    exec(compile(text, name, "exec"), names)
    f: Callable[..., tuple[Tensor, ...]] = names["f"]
    return f


def arguments(seed: int, nodes: int, edges: int, graphs: int) -> tuple[Any, ...]:
    """Random ones, in float64."""
    g = torch.Generator().manual_seed(seed)

    def table(*size: int) -> Tensor:
        return torch.randn(*size, generator=g, dtype=torch.float64).requires_grad_()

    features, weights = (
        (table(nodes, FEATURES), table(edges, FEATURES)),
        (table(FEATURES, FEATURES), table(2 * FEATURES, FEATURES)),
    )
    indices = torch.randint(nodes, (2, edges), generator=g), torch.randint(graphs, (nodes,), generator=g).sort().values
    return *features, *weights, *indices, torch.rand(edges, generator=g, dtype=torch.float64), graphs
