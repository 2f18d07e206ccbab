# Columba: HGTConv_backward
import triton
import triton.language as tl

@triton.jit
def sum_along(x, DIM: tl.constexpr):
    return tl.reduce(x, DIM, tl.standard._sum_combine, keep_dims=True)


@triton.jit
def longest_of(begin, end, OWNERS: tl.constexpr):
    # The most members that an owner of this block has.
    return tl.reduce(tl.reshape(end - begin, (OWNERS,)), 0, tl.standard._elementwise_max)


@triton.jit
def first_tile(tiles, n_tiles, owner):
    # Tiles are sorted by owner: the first whose owner is not below this one.
    low = owner * 0
    high = n_tiles + low
    while low < high:
        middle = (low + high) // 2
        below = tl.load(tiles + middle) < owner
        low = tl.where(below, middle + 1, low)
        high = tl.where(below, high, middle)
    return low


@triton.jit
def in_groups(program, n_tiles, PIECES: tl.constexpr, GROUP: tl.constexpr):
    # Neighbouring programs take one piece of the weights for GROUP tiles, then the next piece for the same tiles.
    group = program // (GROUP * PIECES)
    height = tl.minimum(n_tiles - group * GROUP, GROUP)
    within = program % (GROUP * PIECES)
    return group * GROUP + within % height, within // height

# traversal pointwise_33_kernel(owner=node, via=none) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: node[] f32 = load(buffer=@sigmoid, via=ntype:node->ntype, at=node)
#   %2: node[1] f32 = reshape(%1, to=[1])
#   %3: node[64] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   store @pointwise_33 = %3
# }
@triton.jit(do_not_specialize=["n_node"])
def HGTConv_backward_pointwise_33_kernel(
    n_node,
    pointwise_33_ptr,
    grad_out_ptr,
    ntype_of_node_ptr,
    sigmoid_ptr,
    ROWS: tl.constexpr,
):
    """For each row of node: mul. Stores pointwise_33."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    f0 = tl.arange(0, 64)[None, :]
    valid = row < n_node
    grad_out = tl.load(grad_out_ptr + row * 64 + f0, mask=valid, other=0.0)
    ntype = tl.load(ntype_of_node_ptr + row, mask=valid, other=0).to(tl.int64)
    sigmoid_ntype = tl.load(sigmoid_ptr + ntype, mask=valid, other=0.0)
    tl.store(pointwise_33_ptr + row * 64 + f0, grad_out * sigmoid_ntype, mask=valid)


# gemm linear_34_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@pointwise_33, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@out_weight, via=ntype:node->ntype, transpose=true)
#   %2: node[4,16] f32 = load(buffer=@saved_reduce_5, via=none, at=node)
#   %3: node[64] f32 = reshape(%2, to=[64])
#   %4: node[] f32 = constant(at=node, value=0.7071067811865476, to=f32)
#   %5: node[64] f32 = pointwise(%3, %4, function=mul, scalars=[])
#   %6: node[64] f32 = pointwise(%5, function=erf, scalars=[])
#   %7: node[] f32 = constant(at=node, value=1.0, to=f32)
#   %8: node[64] f32 = pointwise(%6, %7, function=add, scalars=[])
#   %9: node[] f32 = constant(at=node, value=0.5, to=f32)
#   %10: node[64] f32 = pointwise(%8, %9, function=mul, scalars=[])
#   %11: node[64] f32 = pointwise(%3, function=square, scalars=[])
#   %12: node[] f32 = constant(at=node, value=-0.5, to=f32)
#   %13: node[64] f32 = pointwise(%11, %12, function=mul, scalars=[])
#   %14: node[64] f32 = pointwise(%13, function=exp, scalars=[])
#   %15: node[] f32 = constant(at=node, value=0.3989422804014327, to=f32)
#   %16: node[64] f32 = pointwise(%14, %15, function=mul, scalars=[])
#   %17: node[64] f32 = pointwise(%3, %16, function=mul, scalars=[])
#   %18: node[64] f32 = pointwise(%10, %17, function=add, scalars=[])
#   %19: node[64] f32 = pointwise(%1, %18, function=mul, scalars=[])
#   %20: node[4,16] f32 = reshape(%19, to=[4, 16])
#   %21: node[4,16] f32 = pointwise(%20, %2, function=mul, scalars=[])
#   %22: node[4] f32 = feature_reduce(%21, op=sum, axes=[1])
#   store @linear_34 = %1
#   store @pointwise_35 = %19
#   store @feature_reduce_36 = %22
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_34_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_34_ptr,
    pointwise_33_ptr,
    out_weight_ptr,
    pointwise_35_ptr,
    saved_reduce_5_ptr,
    feature_reduce_36_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: pointwise_33 times out_weight transposed of the row's ntype; mul, erf, add, square, exp,
    sum over features. Stores linear_34, pointwise_35, feature_reduce_36.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    end = tl.load(tiles_node_by_ntype_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
    ntype = tl.load(tiles_node_by_ntype_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 4)[None, :, None]
    f1 = tl.arange(0, 16)[None, None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :, None]
        pointwise_33 = tl.load(pointwise_33_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None, None]
        out_weight = tl.load(out_weight_ptr + ntype * 4096 + (f0 * 1024 + f1 * 64 + k_2))
        left = tl.reshape(pointwise_33, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(out_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 4, 16))
    at = f0 * 16 + f1
    tl.store(linear_34_ptr + number * 64 + at, product, mask=valid)
    saved_reduce_5 = tl.load(saved_reduce_5_ptr + number * 64 + at, mask=valid, other=0.0)
    add = ((tl.erf(saved_reduce_5 * 0.7071067811865476) + 1.0) * 0.5) + (saved_reduce_5 * (tl.exp((saved_reduce_5 * saved_reduce_5) * (-0.5)) * 0.3989422804014327))
    mul = product * add
    tl.store(pointwise_35_ptr + number * 64 + at, mul, mask=valid)
    tl.store(feature_reduce_36_ptr + number * 4 + f0, sum_along(mul * saved_reduce_5, 2), mask=valid)


# traversal reduce_44_kernel(owner=src_rel, via=src_rel:edge->src_rel) {
#   %0: edge[64] f32 = load(buffer=@pointwise_35, via=dst:edge->node, at=edge)
#   %1: edge[4,16] f32 = reshape(%0, to=[4, 16])
#   %2: src_rel[4,16] f32 = load(buffer=@saved_linear_4, via=none, at=src_rel)
#   %3: edge[4,16] f32 = lift(%2, via=src_rel:edge->src_rel)
#   %4: edge[4,16] f32 = pointwise(%1, %3, function=mul, scalars=[])
#   %5: edge[4] f32 = feature_reduce(%4, op=sum, axes=[1])
#   %6: edge[4] f32 = load(buffer=@feature_reduce_36, via=dst:edge->node, at=edge)
#   %7: edge[4] f32 = pointwise(%5, %6, function=sub, scalars=[])
#   %8: edge[4] f32 = load(buffer=@saved_feature_reduce_2, via=none, at=edge)
#   %9: edge[] f32 = constant(at=edge, value=0.25, to=f32)
#   %10: edge[4] f32 = pointwise(%8, %9, function=mul, scalars=[])
#   %11: edge[4] f32 = load(buffer=@saved_reduce_3, via=dst:edge->node, at=edge)
#   %12: edge[4] f32 = pointwise(%10, %11, function=sub, scalars=[])
#   %13: edge[4] f32 = pointwise(%12, function=exp, scalars=[])
#   %14: edge[4] f32 = pointwise(%7, %13, function=mul, scalars=[])
#   %15: edge[4] f32 = pointwise(%14, %9, function=mul, scalars=[])
#   %16: edge[4,1] f32 = reshape(%15, to=[4, 1])
#   %17: edge[192] f32 = load(buffer=@saved_pointwise_0, via=dst:edge->node, at=edge)
#   %18: edge[64] f32 = slice(%17, axis=0, start=64, stop=128, step=1)
#   %19: edge[4,16] f32 = reshape(%18, to=[4, 16])
#   %20: edge[4,16] f32 = pointwise(%16, %19, function=mul, scalars=[])
#   %21: src_rel[4,16] f32 = reduce(%20, via=src_rel:edge->src_rel, op=sum)
#   %22: edge[4,1] f32 = reshape(%13, to=[4, 1])
#   %23: edge[4,16] f32 = pointwise(%1, %22, function=mul, scalars=[])
#   %24: src_rel[4,16] f32 = reduce(%23, via=src_rel:edge->src_rel, op=sum)
#   store @pointwise_38 = %15
#   store @reduce_39 = %21
#   store @reduce_44 = %24
# }
@triton.jit(do_not_specialize=["n_src_rel"])
def HGTConv_backward_reduce_44_kernel(
    n_src_rel,
    segments_edge_by_src_rel_ptr,
    order_edge_by_src_rel_ptr,
    pointwise_38_ptr,
    dst_of_edge_by_src_rel_ptr,
    pointwise_35_ptr,
    saved_linear_4_ptr,
    feature_reduce_36_ptr,
    saved_feature_reduce_2_ptr,
    saved_reduce_3_ptr,
    reduce_39_ptr,
    saved_pointwise_0_ptr,
    reduce_44_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of src_rel, over its rows of edge (src_rel:edge->src_rel): sum, mul, sum over features, sub, exp.
    Stores pointwise_38, reduce_39, reduce_44.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_src_rel
    begin = tl.load(segments_edge_by_src_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_src_rel_ptr + owner + 1, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    saved_linear_4 = tl.load(saved_linear_4_ptr + owner * 64 + at, mask=valid, other=0.0)
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_35_dst = tl.load(pointwise_35_ptr + dst * 64 + at, mask=present, other=0.0)
        feature_reduce_36_dst = tl.load(feature_reduce_36_ptr + dst * 4 + f0, mask=present, other=0.0)
        number = tl.load(order_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_feature_reduce_2 = tl.load(saved_feature_reduce_2_ptr + number * 4 + f0, mask=present, other=0.0)
        saved_reduce_3_dst = tl.load(saved_reduce_3_ptr + dst * 4 + f0, mask=present, other=0.0)
        exp = tl.exp((saved_feature_reduce_2 * 0.25) - saved_reduce_3_dst)
        mul = ((sum_along(pointwise_35_dst * saved_linear_4, 3) - feature_reduce_36_dst) * exp) * 0.25
        saved_pointwise_0_dst = tl.load(saved_pointwise_0_ptr + dst * 192 + (at + 64), mask=present, other=0.0)
        total += tl.where(present, mul * saved_pointwise_0_dst, 0)
        total_2 += tl.where(present, pointwise_35_dst * exp, 0)
        tl.store(pointwise_38_ptr + number * 4 + f0, mul, mask=present)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    tl.store(reduce_39_ptr + owner * 64 + at, total, mask=valid)
    tl.store(reduce_44_ptr + owner * 64 + at, total_2, mask=valid)


# gemm linear_45_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[4,16] f32 = load(buffer=@reduce_44, via=none, at=src_rel)
#   %1: src_rel[4,16] f32 = product(%0, w=@msg, via=rel:src_rel->rel, transpose=true)
#   store @linear_45 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_45_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_45_ptr,
    reduce_44_ptr,
    msg_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: reduce_44 times msg transposed of the row's rel. Stores linear_45."""
    tile, matrix = in_groups(tl.program_id(0), n_tiles, 4, GROUP)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    number = position.to(tl.int64)
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    total = tl.full((ROWS, 16), 0, tl.float32)
    k = tl.arange(0, DEPTH)[None, :, None]
    reduce_44 = tl.load(reduce_44_ptr + number * 64 + (matrix * 16 + k), mask=valid, other=0.0)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    msg = tl.load(msg_ptr + rel * 1024 + (matrix * 256 + f1 * 16 + k_2))
    left = tl.reshape(reduce_44, (ROWS, DEPTH)).to(OPERAND)
    right = tl.reshape(msg, (DEPTH, 16)).to(OPERAND)
    total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 1, 16))
    tl.store(linear_45_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# traversal pointwise_49_kernel(owner=ntype, via=none) {
#   %0: ntype[] f32 = constant(at=ntype, value=1.0, to=f32)
#   %1: ntype[] f32 = load(buffer=@sigmoid, via=none, at=ntype)
#   %2: ntype[1] f32 = reshape(%1, to=[1])
#   %3: ntype[1] f32 = pointwise(%0, %2, function=sub, scalars=[])
#   store @pointwise_49 = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_pointwise_49_kernel(
    n_ntype,
    pointwise_49_ptr,
    sigmoid_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: sub. Stores pointwise_49."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n_ntype
    sigmoid = tl.load(sigmoid_ptr + row, mask=valid, other=0.0)
    tl.store(pointwise_49_ptr + row, 1.0 - sigmoid, mask=valid)


# traversal concat_50_kernel(owner=ntype, via=none) {
#   %0: ntype[64,64] f32 = load(buffer=@k_weight, via=none, at=ntype)
#   %1: ntype[64,64] f32 = load(buffer=@q_weight, via=none, at=ntype)
#   %2: ntype[64,64] f32 = load(buffer=@v_weight, via=none, at=ntype)
#   %3: ntype[64,192] f32 = concat(%0, %1, %2, axis=1)
#   store @concat_50 = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_concat_50_kernel(
    n_ntype,
    concat_50_ptr,
    k_weight_ptr,
    q_weight_ptr,
    v_weight_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: copies. Stores concat_50."""
    piece = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    concat_50_row = concat_50_ptr + row * 12288
    f0 = piece * 32 + tl.arange(0, 32)[None, :, None]
    f1 = tl.arange(0, 64)[None, None, :]
    at = f0 * 64 + f1
    valid = row < n_ntype
    k_weight = tl.load(k_weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(concat_50_row + (f0 * 192 + f1), k_weight, mask=valid)
    q_weight = tl.load(q_weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(concat_50_row + (f0 * 192 + (f1 + 64)), q_weight, mask=valid)
    v_weight = tl.load(v_weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(concat_50_row + (f0 * 192 + (f1 + 128)), v_weight, mask=valid)


# gemm_reduce outer_reduce_53_kernel(via=rel:src_rel->rel, shared=false, schedule={tile_rows=1024}) {
#   %0: src_rel[192] f32 = load(buffer=@saved_pointwise_0, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = slice(%0, axis=0, start=0, stop=64, step=1)
#   %2: src_rel[4,16] f32 = reshape(%1, to=[4, 16])
#   %3: src_rel[4,16] f32 = load(buffer=@reduce_39, via=none, at=src_rel)
#   left %2
#   right %3
#   store @outer_reduce_53
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_outer_reduce_53_kernel(
    tiles_src_rel_by_rel_1024_ptr,
    n_tiles,
    src_of_src_rel_ptr,
    saved_pointwise_0_ptr,
    reduce_39_ptr,
    outer_reduce_53_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of src_rel of each rel of saved_pointwise_0 by reduce_39, for every tile on its own.
    Stores outer_reduce_53.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_src_rel_by_rel_1024_ptr + 2 * n_tiles + tile)
    matrix = tl.program_id(2)
    k = tl.arange(0, DEPTH)[None, None, :]
    n = tl.arange(0, COLUMNS)[None, None, :]
    # ROWS rows of the tile at a time.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in range(0, end - begin, ROWS):
        position = begin + start + tl.arange(0, ROWS)[:, None, None]
        valid = position < end
        src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
        saved_pointwise_0_src = tl.load(saved_pointwise_0_ptr + src * 192 + (matrix * 16 + k), mask=valid, other=0.0)
        number = position.to(tl.int64)
        reduce_39 = tl.load(reduce_39_ptr + number * 64 + (matrix * 16 + n), mask=valid, other=0.0)
        left = tl.trans(tl.reshape(saved_pointwise_0_src, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_39, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = outer_reduce_53_parts_ptr + tile.to(tl.int64) * 1024 + tl.program_id(2) * 256
    tl.store(part + to_k * 16 + to_n, total, mask=(to_k < 16) & (to_n < 16))


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_outer_reduce_53_kernel_of_parts(
    outer_reduce_53_parts_ptr,
    outer_reduce_53_ptr,
    tiles_src_rel_by_rel_1024_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of outer_reduce_53_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_src_rel_by_rel_1024_ptr, n_tiles, owner)
    last = first_tile(tiles_src_rel_by_rel_1024_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1024)
        part = tl.load(outer_reduce_53_parts_ptr + at.to(tl.int64) * 1024 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(outer_reduce_53_ptr + owner.to(tl.int64) * 1024 + lane, result, mask=lane < 1024)


# traversal grad_prior_kernel(owner=rel, via=none) {
#   %0: rel[4,16,16] f32 = load(buffer=@att, via=none, at=rel)
#   %1: rel[4] f32 = load(buffer=@prior, via=none, at=rel)
#   %2: rel[4,1,1] f32 = reshape(%1, to=[4, 1, 1])
#   %3: rel[4,16,16] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   %4: rel[4,16,16] f32 = load(buffer=@outer_reduce_53, via=none, at=rel)
#   %5: rel[4,16,16] f32 = pointwise(%4, %2, function=mul, scalars=[])
#   %6: rel[4,16,16] f32 = pointwise(%4, %0, function=mul, scalars=[])
#   %7: rel[4] f32 = feature_reduce(%6, op=sum, axes=[1, 2])
#   store @pointwise_40 = %3
#   store @grad_att = %5
#   store @grad_prior = %7
# }
@triton.jit(do_not_specialize=["n_rel"])
def HGTConv_backward_grad_prior_kernel(
    n_rel,
    pointwise_40_ptr,
    att_ptr,
    prior_ptr,
    grad_att_ptr,
    outer_reduce_53_ptr,
    grad_prior_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul, sum over features. Stores pointwise_40, grad_att, grad_prior."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = tl.arange(0, 4)[None, :, None, None]
    f1 = tl.arange(0, 16)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 256 + f1 * 16 + f2
    valid = row < n_rel
    att = tl.load(att_ptr + row * 1024 + at, mask=valid, other=0.0)
    prior = tl.load(prior_ptr + row * 4 + f0, mask=valid, other=0.0)
    tl.store(pointwise_40_ptr + row * 1024 + at, att * prior, mask=valid)
    outer_reduce_53 = tl.load(outer_reduce_53_ptr + row * 1024 + at, mask=valid, other=0.0)
    tl.store(grad_att_ptr + row * 1024 + at, outer_reduce_53 * prior, mask=valid)
    tl.store(grad_prior_ptr + row * 4 + f0, sum_along(sum_along(outer_reduce_53 * att, 3), 2), mask=valid)


# gemm linear_41_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[4,16] f32 = load(buffer=@reduce_39, via=none, at=src_rel)
#   %1: src_rel[4,16] f32 = product(%0, w=@pointwise_40, via=rel:src_rel->rel, transpose=true)
#   store @linear_41 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_41_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_41_ptr,
    reduce_39_ptr,
    pointwise_40_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: reduce_39 times pointwise_40 transposed of the row's rel. Stores linear_41."""
    tile, matrix = in_groups(tl.program_id(0), n_tiles, 4, GROUP)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    number = position.to(tl.int64)
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    total = tl.full((ROWS, 16), 0, tl.float32)
    k = tl.arange(0, DEPTH)[None, :, None]
    reduce_39 = tl.load(reduce_39_ptr + number * 64 + (matrix * 16 + k), mask=valid, other=0.0)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    pointwise_40 = tl.load(pointwise_40_ptr + rel * 1024 + (matrix * 256 + f1 * 16 + k_2))
    left = tl.reshape(reduce_39, (ROWS, DEPTH)).to(OPERAND)
    right = tl.reshape(pointwise_40, (DEPTH, 16)).to(OPERAND)
    total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 1, 16))
    tl.store(linear_41_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# traversal reduce_42_kernel(owner=node, via=src:src_rel->node) {
#   %0: src_rel[4,16] f32 = load(buffer=@linear_45, via=none, at=src_rel)
#   %1: node[4,16] f32 = reduce(%0, via=src:src_rel->node, op=sum)
#   %2: src_rel[4,16] f32 = load(buffer=@linear_41, via=none, at=src_rel)
#   %3: node[4,16] f32 = reduce(%2, via=src:src_rel->node, op=sum)
#   store @reduce_46 = %1
#   store @reduce_42 = %3
# }
@triton.jit(do_not_specialize=["n_node"])
def HGTConv_backward_reduce_42_kernel(
    n_node,
    segments_src_rel_by_src_ptr,
    reduce_46_ptr,
    order_src_rel_by_src_ptr,
    linear_45_ptr,
    reduce_42_ptr,
    linear_41_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of src_rel (src:src_rel->node): sum. Stores reduce_46, reduce_42."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_node
    begin = tl.load(segments_src_rel_by_src_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_src_rel_by_src_ptr + owner + 1, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of src_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        number = tl.load(order_src_rel_by_src_ptr + position, mask=present, other=0).to(tl.int64)
        linear_45 = tl.load(linear_45_ptr + number * 64 + at, mask=present, other=0.0)
        total += linear_45
        linear_41 = tl.load(linear_41_ptr + number * 64 + at, mask=present, other=0.0)
        total_2 += linear_41
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    tl.store(reduce_46_ptr + owner * 64 + at, total, mask=valid)
    tl.store(reduce_42_ptr + owner * 64 + at, total_2, mask=valid)


# traversal concat_47_kernel(owner=node, via=dst:edge->node) {
#   %0: node[4,16] f32 = load(buffer=@reduce_42, via=none, at=node)
#   %1: node[64] f32 = reshape(%0, to=[64])
#   %2: edge[4] f32 = load(buffer=@pointwise_38, via=none, at=edge)
#   %3: edge[4,1] f32 = reshape(%2, to=[4, 1])
#   %4: edge[4,16] f32 = load(buffer=@saved_linear_1, via=src_rel:edge->src_rel, at=edge)
#   %5: edge[4,16] f32 = pointwise(%3, %4, function=mul, scalars=[])
#   %6: node[4,16] f32 = reduce(%5, via=dst:edge->node, op=sum)
#   %7: node[64] f32 = reshape(%6, to=[64])
#   %8: node[4,16] f32 = load(buffer=@reduce_46, via=none, at=node)
#   %9: node[64] f32 = reshape(%8, to=[64])
#   %10: node[192] f32 = concat(%1, %7, %9, axis=0)
#   store @concat_47 = %10
# }
@triton.jit(do_not_specialize=["n_node"])
def HGTConv_backward_concat_47_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    concat_47_ptr,
    reduce_42_ptr,
    order_edge_by_dst_ptr,
    pointwise_38_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_linear_1_ptr,
    reduce_46_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): sum, mul. Stores concat_47."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_node
    begin = tl.load(segments_edge_by_dst_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_ptr + owner + 1, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        number = tl.load(order_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_38 = tl.load(pointwise_38_ptr + number * 4 + f0, mask=present, other=0.0)
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_linear_1_src_rel = tl.load(saved_linear_1_ptr + src_rel * 64 + at, mask=present, other=0.0)
        total += tl.where(present, pointwise_38 * saved_linear_1_src_rel, 0)
    total = sum_along(total, 1)
    concat_47_row = concat_47_ptr + owner * 192
    reduce_42 = tl.load(reduce_42_ptr + owner * 64 + at, mask=valid, other=0.0)
    tl.store(concat_47_row + at, reduce_42, mask=valid)
    tl.store(concat_47_row + (at + 64), total, mask=valid)
    reduce_46 = tl.load(reduce_46_ptr + owner * 64 + at, mask=valid, other=0.0)
    tl.store(concat_47_row + (at + 128), reduce_46, mask=valid)


# traversal grad_out_bias_kernel(owner=ntype, via=ntype:node->ntype, schedule={split=512}) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: node[64] f32 = load(buffer=@saved_pointwise_7, via=none, at=node)
#   %2: node[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: node[] f32 = feature_reduce(%2, op=sum, axes=[0])
#   %4: node[1] f32 = reshape(%3, to=[1])
#   %5: ntype[1] f32 = reduce(%4, via=ntype:node->ntype, op=sum)
#   %6: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %7: node[64] f32 = pointwise(%0, %6, function=mul, scalars=[])
#   %8: node[] f32 = feature_reduce(%7, op=sum, axes=[0])
#   %9: node[1] f32 = reshape(%8, to=[1])
#   %10: ntype[1] f32 = reduce(%9, via=ntype:node->ntype, op=sum)
#   %11: node[192] f32 = load(buffer=@concat_47, via=none, at=node)
#   %12: ntype[192] f32 = reduce(%11, via=ntype:node->ntype, op=sum)
#   %13: node[64] f32 = load(buffer=@pointwise_33, via=none, at=node)
#   %14: ntype[64] f32 = reduce(%13, via=ntype:node->ntype, op=sum)
#   store @reduce_31 = %5
#   store @reduce_32 = %10
#   store @reduce_52 = %12
#   store @grad_out_bias = %14
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_bias_kernel(
    n_tiles,
    tiles_node_by_ntype_512_ptr,
    reduce_31_parts_ptr,
    order_node_by_ntype_ptr,
    grad_out_ptr,
    saved_pointwise_7_ptr,
    reduce_32_parts_ptr,
    x_ptr,
    reduce_52_parts_ptr,
    concat_47_ptr,
    grad_out_bias_parts_ptr,
    pointwise_33_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of ntype, over its rows of node (ntype:node->ntype): sum, mul, sum over features. Stores
    reduce_31, reduce_32, reduce_52, grad_out_bias.
    """
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(tiles_node_by_ntype_512_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(tiles_node_by_ntype_512_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    f0_2 = tl.arange(0, 256)[None, None, :]
    mask = f0_2 < 192
    total = tl.full((OWNERS, MEMBERS, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 1), 0, tl.float32)
    total_3 = tl.full((OWNERS, MEMBERS, 256), 0, tl.float32)
    total_4 = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of node, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=present, other=0).to(tl.int64)
        grad_out = tl.load(grad_out_ptr + number * 64 + f0, mask=present, other=0.0)
        saved_pointwise_7 = tl.load(saved_pointwise_7_ptr + number * 64 + f0, mask=present, other=0.0)
        total += tl.where(present, sum_along(grad_out * saved_pointwise_7, 2), 0)
        x = tl.load(x_ptr + number * 64 + f0, mask=present, other=0.0)
        total_2 += tl.where(present, sum_along(grad_out * x, 2), 0)
        concat_47 = tl.load(concat_47_ptr + number * 192 + f0_2, mask=present & mask, other=0.0)
        total_3 += concat_47
        pointwise_33 = tl.load(pointwise_33_ptr + number * 64 + f0, mask=present, other=0.0)
        total_4 += pointwise_33
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    total_3 = sum_along(total_3, 1)
    total_4 = sum_along(total_4, 1)
    tl.store(reduce_31_parts_ptr + tile, total, mask=valid)
    tl.store(reduce_32_parts_ptr + tile, total_2, mask=valid)
    tl.store(reduce_52_parts_ptr + tile * 192 + f0_2, total_3, mask=valid & mask)
    tl.store(grad_out_bias_parts_ptr + tile * 64 + f0, total_4, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_bias_kernel_reduce_31_of_parts(
    reduce_31_parts_ptr,
    reduce_31_ptr,
    tiles_node_by_ntype_512_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner)
    last = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1)
        part = tl.load(reduce_31_parts_ptr + at.to(tl.int64) * 1 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(reduce_31_ptr + owner.to(tl.int64) * 1 + lane, result, mask=lane < 1)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_bias_kernel_reduce_32_of_parts(
    reduce_32_parts_ptr,
    reduce_32_ptr,
    tiles_node_by_ntype_512_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner)
    last = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1)
        part = tl.load(reduce_32_parts_ptr + at.to(tl.int64) * 1 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(reduce_32_ptr + owner.to(tl.int64) * 1 + lane, result, mask=lane < 1)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_bias_kernel_reduce_52_of_parts(
    reduce_52_parts_ptr,
    reduce_52_ptr,
    tiles_node_by_ntype_512_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner)
    last = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 192)
        part = tl.load(reduce_52_parts_ptr + at.to(tl.int64) * 192 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(reduce_52_ptr + owner.to(tl.int64) * 192 + lane, result, mask=lane < 192)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_bias_kernel_grad_out_bias_of_parts(
    grad_out_bias_parts_ptr,
    grad_out_bias_ptr,
    tiles_node_by_ntype_512_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner)
    last = first_tile(tiles_node_by_ntype_512_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 64)
        part = tl.load(grad_out_bias_parts_ptr + at.to(tl.int64) * 64 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_out_bias_ptr + owner.to(tl.int64) * 64 + lane, result, mask=lane < 64)


# traversal grad_sigmoid_kernel(owner=ntype, via=none) {
#   %0: ntype[1] f32 = load(buffer=@reduce_31, via=none, at=ntype)
#   %1: ntype[1] f32 = load(buffer=@reduce_32, via=none, at=ntype)
#   %2: ntype[1] f32 = pointwise(%0, %1, function=sub, scalars=[])
#   %3: ntype[] f32 = reshape(%2, to=[])
#   store @grad_sigmoid = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_grad_sigmoid_kernel(
    n_ntype,
    grad_sigmoid_ptr,
    reduce_31_ptr,
    reduce_32_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: sub. Stores grad_sigmoid."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n_ntype
    reduce_31 = tl.load(reduce_31_ptr + row, mask=valid, other=0.0)
    reduce_32 = tl.load(reduce_32_ptr + row, mask=valid, other=0.0)
    tl.store(grad_sigmoid_ptr + row, reduce_31 - reduce_32, mask=valid)


# gemm_reduce outer_reduce_48_kernel(via=ntype:node->ntype, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[192] f32 = load(buffer=@concat_47, via=none, at=node)
#   left %0
#   right %1
#   store @outer_reduce_48
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_outer_reduce_48_kernel(
    tiles_node_by_ntype_1024_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    x_ptr,
    concat_47_ptr,
    outer_reduce_48_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of each ntype of x by concat_47, for every tile on its own. Stores
    outer_reduce_48.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_ntype_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.program_id(1) % 3 * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in range(0, end - begin, ROWS):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        concat_47 = tl.load(concat_47_ptr + number * 192 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(concat_47, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.program_id(1) % 3 * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    part = outer_reduce_48_parts_ptr + tile.to(tl.int64) * 12288
    tl.store(part + to_k * 192 + to_n, total, mask=(to_k < 64) & (to_n < 192))


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_outer_reduce_48_kernel_of_parts(
    outer_reduce_48_parts_ptr,
    outer_reduce_48_ptr,
    tiles_node_by_ntype_1024_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of outer_reduce_48_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_node_by_ntype_1024_ptr, n_tiles, owner)
    last = first_tile(tiles_node_by_ntype_1024_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 12288)
        part = tl.load(outer_reduce_48_parts_ptr + at.to(tl.int64) * 12288 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(outer_reduce_48_ptr + owner.to(tl.int64) * 12288 + lane, result, mask=lane < 12288)


# traversal grad_v_weight_kernel(owner=ntype, via=none) {
#   %0: ntype[64,192] f32 = load(buffer=@outer_reduce_48, via=none, at=ntype)
#   %1: ntype[64,64] f32 = slice(%0, axis=1, start=0, stop=64, step=1)
#   %2: ntype[64,64] f32 = slice(%0, axis=1, start=64, stop=128, step=1)
#   %3: ntype[64,64] f32 = slice(%0, axis=1, start=128, stop=192, step=1)
#   store @grad_k_weight = %1
#   store @grad_q_weight = %2
#   store @grad_v_weight = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_grad_v_weight_kernel(
    n_ntype,
    grad_k_weight_ptr,
    outer_reduce_48_ptr,
    grad_q_weight_ptr,
    grad_v_weight_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: copies. Stores grad_k_weight, grad_q_weight, grad_v_weight."""
    piece = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    f0 = piece * 32 + tl.arange(0, 32)[None, :, None]
    f1 = tl.arange(0, 64)[None, None, :]
    at = f0 * 64 + f1
    outer_reduce_48_row = outer_reduce_48_ptr + row * 12288
    valid = row < n_ntype
    outer_reduce_48 = tl.load(outer_reduce_48_row + (f0 * 192 + f1), mask=valid, other=0.0)
    tl.store(grad_k_weight_ptr + row * 4096 + at, outer_reduce_48, mask=valid)
    outer_reduce_48_2 = tl.load(outer_reduce_48_row + (f0 * 192 + (f1 + 64)), mask=valid, other=0.0)
    tl.store(grad_q_weight_ptr + row * 4096 + at, outer_reduce_48_2, mask=valid)
    outer_reduce_48_3 = tl.load(outer_reduce_48_row + (f0 * 192 + (f1 + 128)), mask=valid, other=0.0)
    tl.store(grad_v_weight_ptr + row * 4096 + at, outer_reduce_48_3, mask=valid)


# gemm linear_51_kernel(schedule={tile_rows=32}) {
#   %0: node[192] f32 = load(buffer=@concat_47, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@concat_50, via=ntype:node->ntype, transpose=true)
#   %2: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %3: node[1] f32 = load(buffer=@pointwise_49, via=ntype:node->ntype, at=node)
#   %4: node[64] f32 = pointwise(%2, %3, function=mul, scalars=[])
#   %5: node[64] f32 = pointwise(%4, %1, function=add, scalars=[])
#   store @linear_51 = %1
#   store @grad_x = %5
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_51_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_51_ptr,
    concat_47_ptr,
    concat_50_ptr,
    grad_x_ptr,
    grad_out_ptr,
    pointwise_49_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: concat_47 times concat_50 transposed of the row's ntype; mul, add. Stores linear_51,
    grad_x.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None]
    end = tl.load(tiles_node_by_ntype_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
    ntype = tl.load(tiles_node_by_ntype_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 64)[None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 192 columns and rows at a time.
    for depth in range(0, 192, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        concat_47 = tl.load(concat_47_ptr + number * 192 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        concat_50 = tl.load(concat_50_ptr + ntype * 12288 + (f0 * 192 + k_2))
        left = tl.reshape(concat_47, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(concat_50, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_51_ptr + number * 64 + f0, product, mask=valid)
    grad_out = tl.load(grad_out_ptr + number * 64 + f0, mask=valid, other=0.0)
    pointwise_49_ntype = tl.load(pointwise_49_ptr + ntype)
    tl.store(grad_x_ptr + number * 64 + f0, (grad_out * pointwise_49_ntype) + product, mask=valid)


# traversal grad_v_bias_kernel(owner=ntype, via=none) {
#   %0: ntype[192] f32 = load(buffer=@reduce_52, via=none, at=ntype)
#   %1: ntype[64] f32 = slice(%0, axis=0, start=0, stop=64, step=1)
#   %2: ntype[64] f32 = slice(%0, axis=0, start=64, stop=128, step=1)
#   %3: ntype[64] f32 = slice(%0, axis=0, start=128, stop=192, step=1)
#   store @grad_k_bias = %1
#   store @grad_q_bias = %2
#   store @grad_v_bias = %3
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_grad_v_bias_kernel(
    n_ntype,
    grad_k_bias_ptr,
    reduce_52_ptr,
    grad_q_bias_ptr,
    grad_v_bias_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: copies. Stores grad_k_bias, grad_q_bias, grad_v_bias."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    f0 = tl.arange(0, 64)[None, :]
    reduce_52_row = reduce_52_ptr + row * 192
    valid = row < n_ntype
    reduce_52 = tl.load(reduce_52_row + f0, mask=valid, other=0.0)
    tl.store(grad_k_bias_ptr + row * 64 + f0, reduce_52, mask=valid)
    reduce_52_2 = tl.load(reduce_52_row + (f0 + 64), mask=valid, other=0.0)
    tl.store(grad_q_bias_ptr + row * 64 + f0, reduce_52_2, mask=valid)
    reduce_52_3 = tl.load(reduce_52_row + (f0 + 128), mask=valid, other=0.0)
    tl.store(grad_v_bias_ptr + row * 64 + f0, reduce_52_3, mask=valid)


# gemm_reduce grad_msg_kernel(via=rel:src_rel->rel, shared=false, schedule={tile_rows=1024}) {
#   %0: src_rel[192] f32 = load(buffer=@saved_pointwise_0, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = slice(%0, axis=0, start=128, stop=192, step=1)
#   %2: src_rel[4,16] f32 = reshape(%1, to=[4, 16])
#   %3: src_rel[4,16] f32 = load(buffer=@reduce_44, via=none, at=src_rel)
#   left %2
#   right %3
#   store @grad_msg
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_msg_kernel(
    tiles_src_rel_by_rel_1024_ptr,
    n_tiles,
    src_of_src_rel_ptr,
    saved_pointwise_0_ptr,
    reduce_44_ptr,
    grad_msg_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of src_rel of each rel of saved_pointwise_0 by reduce_44, for every tile on its own.
    Stores grad_msg.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_src_rel_by_rel_1024_ptr + 2 * n_tiles + tile)
    matrix = tl.program_id(2)
    k = tl.arange(0, DEPTH)[None, None, :]
    n = tl.arange(0, COLUMNS)[None, None, :]
    # ROWS rows of the tile at a time.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in range(0, end - begin, ROWS):
        position = begin + start + tl.arange(0, ROWS)[:, None, None]
        valid = position < end
        src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
        saved_pointwise_0_src = tl.load(saved_pointwise_0_ptr + src * 192 + ((matrix * 16 + k) + 128), mask=valid, other=0.0)
        number = position.to(tl.int64)
        reduce_44 = tl.load(reduce_44_ptr + number * 64 + (matrix * 16 + n), mask=valid, other=0.0)
        left = tl.trans(tl.reshape(saved_pointwise_0_src, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_44, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_msg_parts_ptr + tile.to(tl.int64) * 1024 + tl.program_id(2) * 256
    tl.store(part + to_k * 16 + to_n, total, mask=(to_k < 16) & (to_n < 16))


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_msg_kernel_of_parts(
    grad_msg_parts_ptr,
    grad_msg_ptr,
    tiles_src_rel_by_rel_1024_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_msg_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_src_rel_by_rel_1024_ptr, n_tiles, owner)
    last = first_tile(tiles_src_rel_by_rel_1024_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1024)
        part = tl.load(grad_msg_parts_ptr + at.to(tl.int64) * 1024 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_msg_ptr + owner.to(tl.int64) * 1024 + lane, result, mask=lane < 1024)


# gemm_reduce grad_out_weight_kernel(via=ntype:node->ntype, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@saved_pointwise_6, via=none, at=node)
#   %1: node[64] f32 = load(buffer=@pointwise_33, via=none, at=node)
#   left %0
#   right %1
#   store @grad_out_weight
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_weight_kernel(
    tiles_node_by_ntype_1024_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    saved_pointwise_6_ptr,
    pointwise_33_ptr,
    grad_out_weight_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of each ntype of saved_pointwise_6 by pointwise_33, for every tile on its own.
    Stores grad_out_weight.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_ntype_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in range(0, end - begin, ROWS):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
        saved_pointwise_6 = tl.load(saved_pointwise_6_ptr + number * 64 + k, mask=valid, other=0.0)
        pointwise_33 = tl.load(pointwise_33_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(saved_pointwise_6, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(pointwise_33, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_out_weight_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_weight_kernel_of_parts(
    grad_out_weight_parts_ptr,
    grad_out_weight_ptr,
    tiles_node_by_ntype_1024_ptr,
    n_tiles,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_weight_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = first_tile(tiles_node_by_ntype_1024_ptr, n_tiles, owner)
    last = first_tile(tiles_node_by_ntype_1024_ptr, n_tiles, owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(grad_out_weight_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_out_weight_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)
