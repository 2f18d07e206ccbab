"""DGL 1.1's layers as lists of operations.

``dgl/nn/pytorch/conv/{relgraphconv,gatconv,hgtconv}.py``, ``nn/pytorch/{hetero,linear}.py``, ``backend/pytorch/sparse.py``. Message
functions that are Python see the features of both ends gathered for all edges; built-in ones (``u_mul_e``, ``copy_e``) read them in place.
A graph holds its edges as pairs and sorted by destination, and their types.
"""

from __future__ import annotations

from benchmarks.baselines.sizes import ID, Sizes
from benchmarks.baselines.tape import Tape, Value


def rel_graph_conv(t: Tape, s: Sizes) -> None:
    """``RelGraphConv`` on edges sorted by relation, with a norm for every edge: sources gathered, one grouped product."""
    x, types = _graph(t, s)
    norm = t.leaf(s.rows(s.edges, 1), gradient=False)
    weight, loop, bias = t.leaf(s.relations * s.rows(s.features)), t.leaf(s.rows(s.features)), t.leaf(s.rows(1))
    source = _gather(t, s, x)
    message = _typed(t, s, source, weight, s.edges)
    normed = t.op([message, norm], s.rows(s.edges), saves=[norm])
    t.drop(source, message)
    h = t.op([normed], s.rows(s.nodes), saves=[types])  # copy_e, sum
    t.drop(normed)
    biased = t.op([h, bias], s.rows(s.nodes), hands_on=True)
    own = t.op([x, loop], s.rows(s.nodes), saves=[x, loop], flops=s.products(s.nodes))
    result = t.op([biased, own], s.rows(s.nodes), hands_on=True)
    t.drop(h, biased, own)
    t.backward(result)


def hetero_gat(t: Tape, s: Sizes) -> None:
    """``HeteroGraphConv`` of a ``GATConv`` for each relation: all nodes at its ends multiplied, results of relations stacked and summed."""
    x, _ = _graph(t, s)
    rows, edges, heads = s.of_type, s.of_relation, s.heads
    parts, outs = t.split(x, s.node_types), []
    for n in range(s.relations):
        weight, left, right, bias = t.leaf(s.rows(s.features)), *(t.leaf(s.rows(1)) for _ in range(3))
        ends = parts[n % len(parts)], parts[(n + 1) % len(parts)]
        flops = s.products(rows)
        source, target = (t.op([end, weight], s.rows(rows), saves=[end, weight], flops=flops) for end in ends)
        scores = []
        for end, vector in ((source, left), (target, right)):
            products = t.op([end, vector], s.rows(rows), saves=[end, vector], backward_temporary=s.rows(rows))
            scores.append(t.op([products], s.rows(rows, heads)))
            t.drop(products)
        logits = t.op(scores, s.rows(edges, heads))  # u_add_v
        active = t.op([logits], s.rows(edges, heads), saves=[logits])
        alpha = t.op([active], s.rows(edges, heads), saves_result=True, temporary=s.rows(edges, heads))  # edge_softmax
        aggregated = t.op([source, alpha], s.rows(rows), saves=[source, alpha])  # u_mul_e, sum
        outs.append(t.op([aggregated, bias], s.rows(rows), hands_on=True))
        t.drop(source, target, *scores, logits, active, alpha, aggregated)
    results = []
    for n in range(s.node_types):  # torch.stack of what relations bring to a type, and its sum
        mine = outs[n :: s.node_types]
        if mine:
            stacked = t.op(mine, sum(o.size for o in mine), hands_on=True)
            results.append(t.op([stacked], s.rows(rows)))
            t.drop(stacked)
    t.drop(*outs, *parts)
    whole = t.op(results, s.rows(s.nodes), view=True, hands_on=True)
    t.drop(*results)
    t.backward(whole)


def hgt(t: Tape, s: Sizes) -> None:
    """``HGTConv`` on sorted nodes and edges: keys, queries and values gathered for all edges, then multiplied there, head by head."""
    x, types = _graph(t, s)
    size = s.features // s.heads
    maps = [t.leaf(s.node_types * s.rows(s.features)) for _ in "kqva"]
    relation = [t.leaf(s.relations * s.rows(s.features, size)) for _ in "km"]
    prior, skip = t.leaf(s.rows(s.relations, s.heads)), t.leaf(s.rows(s.node_types, 1))
    k, q, v = (_typed(t, s, x, w, s.nodes) for w in maps[:3])
    k_e, q_e, v_e = (_gather(t, s, p) for p in (k, q, v))
    keys = _typed(t, s, k_e, relation[0], s.edges, size)
    dots = t.op([keys, q_e], s.rows(s.edges), saves=[keys, q_e])
    summed = t.op([dots], s.rows(s.edges, s.heads))
    t.drop(dots)
    priors = t.op([prior, types], s.rows(s.edges, s.heads))
    scaled = t.op([summed, priors], s.rows(s.edges, s.heads), saves=[summed, priors])
    divided = t.op([scaled], s.rows(s.edges, s.heads))
    t.drop(summed, priors, scaled)
    messages = _typed(t, s, v_e, relation[1], s.edges, size)
    logits = t.op([divided], s.rows(s.edges, s.heads))  # torch.stack
    stacked = t.op([messages], s.rows(s.edges), hands_on=True)
    t.drop(divided, messages, keys, k_e, q_e, v_e)
    alpha = t.op([logits], s.rows(s.edges, s.heads), saves_result=True, temporary=s.rows(s.edges, s.heads))
    weighted = t.op([stacked, alpha], s.rows(s.edges), saves=[stacked, alpha], backward_temporary=s.rows(s.edges))
    t.drop(stacked, alpha, logits)
    h = t.op([weighted], s.rows(s.nodes))  # copy_e, sum
    t.drop(k, q, v)
    out = _typed(t, s, h, maps[3], s.nodes)
    dropped = t.op([out], s.rows(s.nodes), saves=[t.op([], s.nodes * s.features)] if t.training else ())
    gates = t.op([skip], s.rows(s.nodes, 1), saves_result=True)
    gated = t.op([dropped, gates], s.rows(s.nodes), saves=[dropped, gates], backward_temporary=s.rows(s.nodes))
    kept = t.op([x, gates], s.rows(s.nodes), saves=[x, gates], backward_temporary=s.rows(s.nodes))
    result = t.op([gated, kept], s.rows(s.nodes), hands_on=True)
    t.drop(weighted, h, out, dropped, gates, gated, kept)
    t.backward(result)


# ------------------------------------------------------------------------------------------------ parts


def _graph(t: Tape, s: Sizes) -> tuple[Value, Value]:
    """The input, and edge types; the graph's edges, as pairs and by destination."""
    t.leaf(2 * ID * s.edges, gradient=False)
    t.leaf(2 * ID * s.edges + ID * s.nodes, gradient=False)
    return t.leaf(s.rows(s.nodes)), t.leaf(ID * s.edges, gradient=False)


def _gather(t: Tape, s: Sizes, x: Value) -> Value:
    """Rows of ``x`` for all edges, as message functions in Python see them."""
    return t.op([x], s.rows(s.edges), reads=[min(x.size, s.rows(s.edges))])


def _typed(t: Tape, s: Sizes, x: Value, weight: Value, rows: int, size: int | None = None) -> Value:
    """``TypedLinear`` on sorted rows: one grouped product."""
    return t.op([x, weight], s.rows(rows), saves=[x, weight], flops=s.products(rows, size, s.features))
