# Columba: HGTConv
import triton
import triton.language as tl

@triton.jit
def sum_along(x, DIM: tl.constexpr):
    return tl.reduce(x, DIM, tl.standard._sum_combine, keep_dims=True)


@triton.jit
def max_along(x, DIM: tl.constexpr):
    # A NaN anywhere comes out, as in PyTorch.
    nan = tl.reduce(tl.where(x == x, 0, x), DIM, tl.standard._sum_combine, keep_dims=True)
    return tl.reduce(x, DIM, tl.standard._elementwise_max, keep_dims=True) + nan


@triton.jit
def longest_of(begin, end, OWNERS: tl.constexpr):
    # The most members that an owner of this block has.
    return tl.reduce(tl.reshape(end - begin, (OWNERS,)), 0, tl.standard._elementwise_max)


@triton.jit
def in_groups(program, n_tiles, PIECES: tl.constexpr, GROUP: tl.constexpr):
    # Neighbouring programs take one piece of the weights for GROUP tiles, then the next piece for the same tiles.
    group = program // (GROUP * PIECES)
    height = tl.minimum(n_tiles - group * GROUP, GROUP)
    within = program % (GROUP * PIECES)
    return group * GROUP + within % height, within // height

# traversal concat_22_kernel(owner=ntype, via=none) {
#   %0: ntype[64,64] f32 = load(buffer=@k_weight, via=none, at=ntype)
#   %1: ntype[64,64] f32 = load(buffer=@q_weight, via=none, at=ntype)
#   %2: ntype[64,64] f32 = load(buffer=@v_weight, via=none, at=ntype)
#   %3: ntype[64,192] f32 = concat(%0, %1, %2, axis=1)
#   store @concat_22 = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_concat_22_kernel(
    n_ntype,
    concat_22_ptr,
    k_weight_ptr,
    q_weight_ptr,
    v_weight_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: copies. Stores concat_22."""
    piece = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    concat_22_row = concat_22_ptr + row * 12288
    f0 = piece * 32 + tl.arange(0, 32)[None, :, None]
    f1 = tl.arange(0, 64)[None, None, :]
    at = f0 * 64 + f1
    valid = row < n_ntype
    k_weight = tl.load(k_weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(concat_22_row + (f0 * 192 + f1), k_weight, mask=valid)
    q_weight = tl.load(q_weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(concat_22_row + (f0 * 192 + (f1 + 64)), q_weight, mask=valid)
    v_weight = tl.load(v_weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(concat_22_row + (f0 * 192 + (f1 + 128)), v_weight, mask=valid)


# traversal concat_24_kernel(owner=ntype, via=none) {
#   %0: ntype[64] f32 = load(buffer=@k_bias, via=none, at=ntype)
#   %1: ntype[64] f32 = load(buffer=@q_bias, via=none, at=ntype)
#   %2: ntype[64] f32 = load(buffer=@v_bias, via=none, at=ntype)
#   %3: ntype[192] f32 = concat(%0, %1, %2, axis=0)
#   store @concat_24 = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_concat_24_kernel(
    n_ntype,
    concat_24_ptr,
    k_bias_ptr,
    q_bias_ptr,
    v_bias_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: copies. Stores concat_24."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    concat_24_row = concat_24_ptr + row * 192
    f0 = tl.arange(0, 64)[None, :]
    valid = row < n_ntype
    k_bias = tl.load(k_bias_ptr + row * 64 + f0, mask=valid, other=0.0)
    tl.store(concat_24_row + f0, k_bias, mask=valid)
    q_bias = tl.load(q_bias_ptr + row * 64 + f0, mask=valid, other=0.0)
    tl.store(concat_24_row + (f0 + 64), q_bias, mask=valid)
    v_bias = tl.load(v_bias_ptr + row * 64 + f0, mask=valid, other=0.0)
    tl.store(concat_24_row + (f0 + 128), v_bias, mask=valid)


# gemm linear_23_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[192] f32 = product(%0, w=@concat_22, via=ntype:node->ntype, transpose=false)
#   %2: node[192] f32 = load(buffer=@concat_24, via=ntype:node->ntype, at=node)
#   %3: node[192] f32 = pointwise(%1, %2, function=add, scalars=[])
#   store @linear_23 = %1
#   store @saved_0 = %3
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_linear_23_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_23_ptr,
    x_ptr,
    concat_22_ptr,
    saved_0_ptr,
    concat_24_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: x times concat_22 of the row's ntype; add. Stores linear_23, saved_0."""
    tile, column = in_groups(tl.program_id(0), n_tiles, 3, GROUP)
    begin = tl.load(tiles_node_by_ntype_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None]
    end = tl.load(tiles_node_by_ntype_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
    ntype = tl.load(tiles_node_by_ntype_32_ptr + tile).to(tl.int64)
    n = column * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.full((ROWS, COLUMNS), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        concat_22 = tl.load(concat_22_ptr + ntype * 12288 + (k_2 * 192 + n))
        left = tl.reshape(x, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(concat_22, (DEPTH, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, COLUMNS))
    tl.store(linear_23_ptr + number * 192 + n, product, mask=valid)
    concat_24_ntype = tl.load(concat_24_ptr + ntype * 192 + n)
    tl.store(saved_0_ptr + number * 192 + n, product + concat_24_ntype, mask=valid)


# traversal pointwise_25_kernel(owner=rel, via=none) {
#   %0: rel[4,16,16] f32 = load(buffer=@att, via=none, at=rel)
#   %1: rel[4] f32 = load(buffer=@prior, via=none, at=rel)
#   %2: rel[4,1,1] f32 = reshape(%1, to=[4, 1, 1])
#   %3: rel[4,16,16] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   store @pointwise_25 = %3
# }
@triton.jit(do_not_specialize=["n_rel"])
def HGTConv_pointwise_25_kernel(
    n_rel,
    pointwise_25_ptr,
    att_ptr,
    prior_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul. Stores pointwise_25."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = tl.arange(0, 4)[None, :, None, None]
    f1 = tl.arange(0, 16)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 256 + f1 * 16 + f2
    valid = row < n_rel
    att = tl.load(att_ptr + row * 1024 + at, mask=valid, other=0.0)
    prior = tl.load(prior_ptr + row * 4 + f0, mask=valid, other=0.0)
    tl.store(pointwise_25_ptr + row * 1024 + at, att * prior, mask=valid)


# gemm saved_1_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[192] f32 = load(buffer=@saved_0, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = slice(%0, axis=0, start=0, stop=64, step=1)
#   %2: src_rel[4,16] f32 = reshape(%1, to=[4, 16])
#   %3: src_rel[4,16] f32 = product(%2, w=@pointwise_25, via=rel:src_rel->rel, transpose=false)
#   store @saved_1 = %3
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_saved_1_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    saved_1_ptr,
    src_of_src_rel_ptr,
    saved_0_ptr,
    pointwise_25_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: saved_0 times pointwise_25 of the row's rel. Stores saved_1."""
    tile, matrix = in_groups(tl.program_id(0), n_tiles, 4, GROUP)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    total = tl.full((ROWS, 16), 0, tl.float32)
    k = tl.arange(0, DEPTH)[None, :, None]
    saved_0_src = tl.load(saved_0_ptr + src * 192 + (matrix * 16 + k), mask=valid, other=0.0)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    pointwise_25 = tl.load(pointwise_25_ptr + rel * 1024 + (matrix * 256 + k_2 * 16 + f1))
    left = tl.reshape(saved_0_src, (ROWS, DEPTH)).to(OPERAND)
    right = tl.reshape(pointwise_25, (DEPTH, 16)).to(OPERAND)
    total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 1, 16))
    number = position.to(tl.int64)
    tl.store(saved_1_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# gemm saved_4_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[192] f32 = load(buffer=@saved_0, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = slice(%0, axis=0, start=128, stop=192, step=1)
#   %2: src_rel[4,16] f32 = reshape(%1, to=[4, 16])
#   %3: src_rel[4,16] f32 = product(%2, w=@msg, via=rel:src_rel->rel, transpose=false)
#   store @saved_4 = %3
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_saved_4_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    saved_4_ptr,
    src_of_src_rel_ptr,
    saved_0_ptr,
    msg_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: saved_0 times msg of the row's rel. Stores saved_4."""
    tile, matrix = in_groups(tl.program_id(0), n_tiles, 4, GROUP)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    total = tl.full((ROWS, 16), 0, tl.float32)
    k = tl.arange(0, DEPTH)[None, :, None]
    saved_0_src = tl.load(saved_0_ptr + src * 192 + ((matrix * 16 + k) + 128), mask=valid, other=0.0)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    msg = tl.load(msg_ptr + rel * 1024 + (matrix * 256 + k_2 * 16 + f1))
    left = tl.reshape(saved_0_src, (ROWS, DEPTH)).to(OPERAND)
    right = tl.reshape(msg, (DEPTH, 16)).to(OPERAND)
    total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 1, 16))
    number = position.to(tl.int64)
    tl.store(saved_4_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# traversal saved_6_kernel(owner=node, via=dst:edge->node) {
#   %0: edge[4,16] f32 = load(buffer=@saved_1, via=src_rel:edge->src_rel, at=edge)
#   %1: node[192] f32 = load(buffer=@saved_0, via=none, at=node)
#   %2: edge[192] f32 = lift(%1, via=dst:edge->node)
#   %3: edge[64] f32 = slice(%2, axis=0, start=64, stop=128, step=1)
#   %4: edge[4,16] f32 = reshape(%3, to=[4, 16])
#   %5: edge[4,16] f32 = pointwise(%0, %4, function=mul, scalars=[])
#   %6: edge[4] f32 = feature_reduce(%5, op=sum, axes=[1])
#   %7: edge[] f32 = constant(at=edge, value=0.25, to=f32)
#   %8: edge[4] f32 = pointwise(%6, %7, function=mul, scalars=[])
#   %9: node[4] f32 = reduce(%8, via=dst:edge->node, op=logsumexp)
#   %10: edge[4] f32 = lift(%9, via=dst:edge->node)
#   %11: edge[4] f32 = pointwise(%8, %10, function=sub, scalars=[])
#   %12: edge[4] f32 = pointwise(%11, function=exp, scalars=[])
#   %13: edge[4,1] f32 = reshape(%12, to=[4, 1])
#   %14: edge[4,16] f32 = load(buffer=@saved_4, via=src_rel:edge->src_rel, at=edge)
#   %15: edge[4,16] f32 = pointwise(%13, %14, function=mul, scalars=[])
#   %16: node[4,16] f32 = reduce(%15, via=dst:edge->node, op=sum)
#   %17: node[64] f32 = reshape(%16, to=[64])
#   %18: node[64] f32 = pointwise(%17, function=gelu, scalars=[])
#   store @saved_2 = %6
#   store @saved_3 = %9
#   store @saved_5 = %16
#   store @saved_6 = %18
# }
@triton.jit(do_not_specialize=["n_node"])
def HGTConv_saved_6_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    order_edge_by_dst_ptr,
    saved_2_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_1_ptr,
    saved_0_ptr,
    saved_3_ptr,
    saved_5_ptr,
    saved_4_ptr,
    saved_6_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): logsumexp, sum, mul, sum over features, sub,
    exp, gelu. Stores saved_2, saved_3, saved_5, saved_6.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_node
    begin = tl.load(segments_edge_by_dst_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_ptr + owner + 1, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    saved_0 = tl.load(saved_0_ptr + owner * 192 + (at + 64), mask=valid, other=0.0)
    logsumexp = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    exponentials = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: the log-sum-exp of an online softmax, their sum, weighted by that softmax, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_1_src_rel = tl.load(saved_1_ptr + src_rel * 64 + at, mask=present, other=0.0)
        sum_value = sum_along(saved_1_src_rel * saved_0, 3)
        counted = tl.where(present, sum_value * 0.25, -float('inf'))
        top = tl.maximum(logsumexp, counted, propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(top == -float('inf'), 0, top)
        scale = tl.exp(logsumexp - base)
        weight = tl.exp(counted - base)
        exponentials = exponentials * scale + weight
        logsumexp = top
        saved_4_src_rel = tl.load(saved_4_ptr + src_rel * 64 + at, mask=present, other=0.0)
        # What is summed so far shrinks where there is a new largest logit.
        total = total * scale + weight * saved_4_src_rel
        number = tl.load(order_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        tl.store(saved_2_ptr + number * 4 + f0, sum_value, mask=present)
    top_2 = max_along(logsumexp, 1)
    base_2 = tl.where(top_2 == -float('inf'), 0, top_2)
    rescale = tl.exp(logsumexp - base_2)
    exponentials = sum_along(exponentials * rescale, 1)
    logsumexp = tl.where(end > begin, base_2 + tl.log(exponentials), 0)
    total = tl.where(end > begin, sum_along(total * rescale, 1) / exponentials, 0)
    tl.store(saved_3_ptr + owner * 4 + f0, logsumexp, mask=valid)
    tl.store(saved_5_ptr + owner * 64 + at, total, mask=valid)
    tl.store(saved_6_ptr + owner * 64 + at, total * 0.5 * (1 + tl.erf(total * 0.7071067811865476)), mask=valid)


# traversal pointwise_28_kernel(owner=ntype, via=none) {
#   %0: ntype[] f32 = constant(at=ntype, value=1.0, to=f32)
#   %1: ntype[] f32 = load(buffer=@sigmoid, via=none, at=ntype)
#   %2: ntype[1] f32 = reshape(%1, to=[1])
#   %3: ntype[1] f32 = pointwise(%0, %2, function=sub, scalars=[])
#   store @pointwise_28 = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_pointwise_28_kernel(
    n_ntype,
    pointwise_28_ptr,
    sigmoid_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: sub. Stores pointwise_28."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n_ntype
    sigmoid = tl.load(sigmoid_ptr + row, mask=valid, other=0.0)
    tl.store(pointwise_28_ptr + row, 1.0 - sigmoid, mask=valid)


# gemm linear_27_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@saved_6, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@out_weight, via=ntype:node->ntype, transpose=false)
#   %2: node[64] f32 = load(buffer=@out_bias, via=ntype:node->ntype, at=node)
#   %3: node[64] f32 = pointwise(%1, %2, function=add, scalars=[])
#   %4: node[] f32 = load(buffer=@sigmoid, via=ntype:node->ntype, at=node)
#   %5: node[1] f32 = reshape(%4, to=[1])
#   %6: node[64] f32 = pointwise(%5, %3, function=mul, scalars=[])
#   %7: node[1] f32 = load(buffer=@pointwise_28, via=ntype:node->ntype, at=node)
#   %8: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %9: node[64] f32 = pointwise(%7, %8, function=mul, scalars=[])
#   %10: node[64] f32 = pointwise(%6, %9, function=add, scalars=[])
#   store @linear_27 = %1
#   store @saved_7 = %3
#   store @out = %10
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_linear_27_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_27_ptr,
    saved_6_ptr,
    out_weight_ptr,
    saved_7_ptr,
    out_bias_ptr,
    out_ptr,
    sigmoid_ptr,
    pointwise_28_ptr,
    x_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: saved_6 times out_weight of the row's ntype; add, mul. Stores linear_27, saved_7, out."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None]
    end = tl.load(tiles_node_by_ntype_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
    ntype = tl.load(tiles_node_by_ntype_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 64)[None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        saved_6 = tl.load(saved_6_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        out_weight = tl.load(out_weight_ptr + ntype * 4096 + (k_2 * 64 + f0))
        left = tl.reshape(saved_6, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(out_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_27_ptr + number * 64 + f0, product, mask=valid)
    out_bias_ntype = tl.load(out_bias_ptr + ntype * 64 + f0)
    add = product + out_bias_ntype
    tl.store(saved_7_ptr + number * 64 + f0, add, mask=valid)
    sigmoid_ntype = tl.load(sigmoid_ptr + ntype)
    pointwise_28_ntype = tl.load(pointwise_28_ptr + ntype)
    x = tl.load(x_ptr + number * 64 + f0, mask=valid, other=0.0)
    tl.store(out_ptr + number * 64 + f0, (sigmoid_ntype * add) + (pointwise_28_ntype * x), mask=valid)
