"""PyG 2.8's layers as lists of operations, as they run from ``pip install torch_geometric``, without its compiled extensions.

``torch_geometric/nn/conv/{rgcn,rgat,hgt}_conv.py``, ``nn/dense/linear.py``, ``utils/_softmax.py``, ``utils/_scatter.py``.
"""

from __future__ import annotations

from benchmarks.baselines.sizes import ID, Sizes
from benchmarks.baselines.tape import Tape, Value


def rgcn(t: Tape, s: Sizes) -> None:
    """``RGCNConv``, ``aggr="mean"``: for every relation its edges are selected, averaged into all nodes, and all nodes multiplied."""
    x, index, types = _graph(t, s)
    weight, root, bias = t.leaf(s.relations * s.rows(s.features)), t.leaf(s.rows(s.features)), t.leaf(s.rows(1))
    out = t.op([], s.rows(s.nodes))
    counted = t.op([types], ID * s.relations, temporary=ID * s.edges)  # scatter(ones_like(edge_type), edge_type)
    t.drop(counted)
    before: list[Value] = []  # variables of the relation before, which are there until they are bound again
    for _ in range(s.relations):
        mask = t.op([types], s.edges)
        chosen = t.op([index, mask], 2 * ID * s.of_relation, temporary=ID * s.of_relation)  # edge_index[:, mask]
        t.drop(mask)
        mean = _mean(t, s, x, chosen)
        matrix = t.op([weight], s.rows(s.features), view=True)  # its gradient is as large as all weights
        product = t.op([mean, matrix], s.rows(s.nodes), saves=[mean, matrix], flops=s.products(s.nodes))
        total = t.op([out, product], s.rows(s.nodes), hands_on=True)
        t.drop(matrix, product, out, *before)
        out, before = total, [chosen, mean]
    t.drop(*before)
    _finish(t, s, out, x, root, bias)


def _mean(t: Tape, s: Sizes, x: Value, chosen: Value) -> Value:
    """The mean of the sources' features over the chosen edges, for all nodes."""
    x_j = _gather(t, s, x, s.of_relation, saves=[chosen])
    count = t.op([chosen], s.rows(s.nodes, 1), reads=[ID * s.of_relation], temporary=s.rows(s.of_relation, 1))
    clamped = t.op([count], s.rows(s.nodes, 1))
    t.drop(count)
    total = t.op([x_j], s.rows(s.nodes), saves=[chosen])
    mean = t.op([total, clamped], s.rows(s.nodes), saves=[clamped])
    t.drop(x_j, total, clamped)
    return mean


def fast_rgcn(t: Tape, s: Sizes) -> None:
    """``FastRGCNConv``, ``aggr="mean"``: a weight matrix for every edge."""
    x, _, types = _graph(t, s)
    weight, root, bias = t.leaf(s.relations * s.rows(s.features)), t.leaf(s.rows(s.features)), t.leaf(s.rows(1))
    x_j = _gather(t, s, x, s.edges)
    matrices = _weight_of_edges(t, s, weight, types)
    message = t.op([x_j, matrices], s.rows(s.edges), saves=[x_j, matrices], flops=s.products(s.edges))
    t.drop(matrices)
    one_hot = t.op([types], s.rows(s.edges, s.relations))
    counts = t.op([one_hot], s.rows(s.nodes, s.relations))
    of_edge = t.op([counts], s.rows(s.edges, s.relations), reads=[min(counts.size, one_hot.size)])
    t.drop(counts, one_hot)
    gathered = t.op([of_edge], s.rows(s.edges, 1), reads=[s.rows(s.edges, 1)])
    t.drop(of_edge)
    norm = t.op([gathered], s.rows(s.edges, 1))
    t.drop(gathered)
    weighted = t.op([message, norm], s.rows(s.edges), saves=[norm])
    out = t.op([weighted], s.rows(s.nodes))
    t.drop(message, norm, weighted, x_j)
    _finish(t, s, out, x, root, bias)


def rgat(t: Tape, s: Sizes) -> None:
    """``RGATConv``, additive attention across relations: both ends multiplied with a weight matrix for every edge."""
    x, _, types = _graph(t, s)
    weight, q, k = t.leaf(s.relations * s.rows(s.features)), *(t.leaf(s.rows(1, s.features * s.heads)) for _ in "qk")
    bias = t.leaf(s.rows(1))
    x_i, x_j = _gather(t, s, x, s.edges), _gather(t, s, x, s.edges)
    matrices = _weight_of_edges(t, s, weight, types)
    ends = []
    for end in (x_i, x_j):
        ends.append(t.op([end, matrices], s.rows(s.edges), saves=[end, matrices], flops=s.products(s.edges)))
    scores = []
    for end, vector in zip(ends, (q, k), strict=True):
        flops = s.products(s.edges, columns=s.heads)
        scores.append(t.op([end, vector], s.rows(s.edges, s.heads), saves=[end, vector], flops=flops))
    score = t.op(scores, s.rows(s.edges, s.heads), hands_on=True)
    activated = t.op([score], s.rows(s.edges, s.heads), saves=[score])
    t.drop(score)
    alpha = _softmax(t, s, activated)
    t.drop(activated)
    message = t.op([alpha, ends[1]], s.rows(s.edges), saves=[alpha, ends[1]], backward_temporary=s.rows(s.edges))
    t.drop(*ends, *scores, matrices, x_i, x_j)
    out = t.op([message], s.rows(s.nodes))
    t.drop(message)
    result = t.op([out, bias], s.rows(s.nodes), hands_on=True)
    t.drop(out, alpha)
    t.backward(result)


def hgt(t: Tape, s: Sizes) -> None:
    """``HGTConv``: keys and values of a node type are repeated for every relation that leaves it, and multiplied there."""
    x, index, _ = _graph(t, s)
    size = s.features // s.heads
    kqv_weight, out_weight = (t.leaf(s.node_types * n * s.rows(s.features)) for n in (3, 1))
    kqv_bias, out_bias = (t.leaf(s.rows(s.node_types * n)) for n in (3, 1))
    relation = [t.leaf(s.relations * s.rows(s.features, size)) for _ in "kv"]
    prior, skip = t.leaf(s.rows(s.relations, s.heads)), t.leaf(s.rows(s.node_types, 1))
    repeated = s.relations * s.of_type

    kqv = t.op([x, kqv_weight, kqv_bias], 3 * s.rows(s.nodes), saves=[x, kqv_weight], flops=3 * s.products(s.nodes))
    k, q, v = t.split(kqv, 3)
    q_all = t.op([q], s.rows(s.nodes), hands_on=True)  # torch.cat
    kinds = t.op([], ID * repeated * s.heads, temporary=ID * repeated * s.heads)
    copies = [t.op([part], s.rows(repeated), hands_on=s.relations == 1) for part in (k, v)]  # torch.cat
    if s.heads > 1:  # transpose(0, 1).reshape(-1, D)
        reshaped = [t.op([copy], s.rows(repeated)) for copy in copies]
        t.drop(*copies)
        copies = reshaped
    products = [_typed_product(t, s, copy, w, repeated, size) for copy, w in zip(copies, relation, strict=True)]
    t.drop(kinds, *copies)

    shifted = t.op([index], 2 * ID * s.edges, temporary=2 * ID * s.edges)
    priors = t.op([prior], s.rows(s.edges, s.heads))
    k_j, v_j = (_gather(t, s, p, s.edges, saves=[shifted]) for p in products)
    q_i = _gather(t, s, q_all, s.edges, saves=[shifted])
    dots = t.op([q_i, k_j], s.rows(s.edges), saves=[q_i, k_j])
    summed = t.op([dots], s.rows(s.edges, s.heads), backward_temporary=0)
    t.drop(dots)
    scaled = t.op([summed, priors], s.rows(s.edges, s.heads), saves=[summed, priors])
    t.drop(summed)
    score = t.op([scaled], s.rows(s.edges, s.heads))
    t.drop(scaled)
    alpha = _softmax(t, s, score)
    t.drop(score)
    message = t.op([v_j, alpha], s.rows(s.edges), saves=[v_j, alpha], backward_temporary=s.rows(s.edges))
    t.drop(k_j, v_j, q_i, alpha)
    h = t.op([message], s.rows(s.nodes), saves=[shifted])
    t.drop(message, priors, shifted, q_all)

    active = t.op([h], s.rows(s.nodes), saves=[h])
    out = t.op([active, out_weight, out_bias], s.rows(s.nodes), saves=[active, out_weight], flops=s.products(s.nodes))
    gated = t.op([out, skip], s.rows(s.nodes), saves=[out, skip], backward_temporary=s.rows(s.of_type))
    kept = t.op([x, skip], s.rows(s.nodes), saves=[x, skip], backward_temporary=s.rows(s.of_type))
    result = t.op([gated, kept], s.rows(s.nodes), hands_on=True)
    t.drop(active, out, gated, kept, h, kqv, k, q, v, *products)
    t.backward(result)


# ------------------------------------------------------------------------------------------------ parts


def _graph(t: Tape, s: Sizes) -> tuple[Value, Value, Value]:
    """The input, ``edge_index`` and ``edge_type``."""
    index, types = t.leaf(2 * ID * s.edges, gradient=False), t.leaf(ID * s.edges, gradient=False)
    return t.leaf(s.rows(s.nodes)), index, types


def _gather(t: Tape, s: Sizes, x: Value, edges: int, saves: list[Value] | None = None) -> Value:
    """Rows of ``x`` for edges; the gradient is a sum into zeros of the size of ``x``."""
    return t.op([x], s.rows(edges), saves=saves or [], reads=[min(x.size, s.rows(edges))])


def _weight_of_edges(t: Tape, s: Sizes, weight: Value, types: Value) -> Value:
    """``weight[edge_type]``, in floats ``[E, F, F]``."""
    size = s.edges * s.rows(s.features)
    return t.op([weight, types], size, reads=[min(weight.size, size), types.size])


def _softmax(t: Tape, s: Sizes, score: Value) -> Value:
    """``torch_geometric.utils.softmax``."""
    rows, nodes = s.rows(s.edges, s.heads), s.rows(s.nodes, s.heads)
    most = t.op([score], nodes)
    most.wants_gradient = False
    if t.training:
        t.records.pop()  # of a detached tensor
    lifted = t.op([most], rows)
    shifted = t.op([score, lifted], rows, hands_on=True)
    t.drop(lifted)
    e = t.op([shifted], rows, saves_result=True)
    t.drop(shifted)
    total = t.op([e], nodes)
    shifted_total = t.op([total], nodes, hands_on=True)
    t.drop(total)
    lifted = t.op([shifted_total], rows)
    t.drop(shifted_total)
    alpha = t.op([e, lifted], rows, saves=[e, lifted], backward_temporary=rows)
    t.drop(e, lifted, most)
    return alpha


def _typed_product(t: Tape, s: Sizes, x: Value, weight: Value, rows: int, size: int) -> Value:
    """``HeteroLinear``: slices of one result are written in place, one product a type.

    Autograd copies the whole gradient for every slice that was written.
    """
    whole = s.rows(rows)
    return t.op(
        [x, weight],
        whole,
        saves=[x, weight],
        flops=s.products(rows, size, s.features),
        temporary=s.rows(s.of_type),
        backward_temporary=whole,
        backward_moved=float(2 * whole * s.relations * s.heads),
    )


def _finish(t: Tape, s: Sizes, out: Value, x: Value, root: Value, bias: Value) -> None:
    """The root weight and the bias, then the gradient."""
    own = t.op([x, root], s.rows(s.nodes), saves=[x, root], flops=s.products(s.nodes))
    total = t.op([out, own], s.rows(s.nodes), hands_on=True)
    t.drop(out, own)
    result = t.op([total, bias], s.rows(s.nodes), hands_on=True)
    t.drop(total)
    t.backward(result)
