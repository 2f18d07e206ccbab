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

# traversal pointwise_47_kernel(owner=ntype, via=none) {
#   %0: ntype[] f32 = load(buffer=@skip, via=none, at=ntype)
#   %1: ntype[] f32 = pointwise(%0, function=sigmoid, scalars=[])
#   %2: ntype[] f32 = constant(at=ntype, value=1.0, to=f32)
#   %3: ntype[1] f32 = reshape(%1, to=[1])
#   %4: ntype[1] f32 = pointwise(%2, %3, function=sub, scalars=[])
#   store @pointwise_36 = %1
#   store @pointwise_47 = %4
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_pointwise_47_kernel(
    n_ntype,
    pointwise_36_ptr,
    skip_ptr,
    pointwise_47_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: sigmoid, sub. Stores pointwise_36, pointwise_47."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n_ntype
    skip = tl.load(skip_ptr + row, mask=valid, other=0.0)
    sigmoid = 1 / (1 + tl.exp(-skip))
    tl.store(pointwise_36_ptr + row, sigmoid, mask=valid)
    tl.store(pointwise_47_ptr + row, 1.0 - sigmoid, mask=valid)


# traversal grad_out_bias_kernel(owner=ntype, via=ntype:node->ntype, schedule={split=4096}) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: node[64] f32 = load(buffer=@saved_pointwise_10, via=none, at=node)
#   %2: node[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: node[] f32 = feature_reduce(%2, op=sum, axes=[0])
#   %4: node[1] f32 = reshape(%3, to=[1])
#   %5: ntype[1] f32 = reduce(%4, via=ntype:node->ntype, op=sum)
#   %6: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %7: node[64] f32 = pointwise(%0, %6, function=mul, scalars=[])
#   %8: node[] f32 = feature_reduce(%7, op=sum, axes=[0])
#   %9: node[1] f32 = reshape(%8, to=[1])
#   %10: ntype[1] f32 = reduce(%9, via=ntype:node->ntype, op=sum)
#   %11: ntype[] f32 = load(buffer=@pointwise_36, via=none, at=ntype)
#   %12: node[] f32 = lift(%11, via=ntype:node->ntype)
#   %13: node[1] f32 = reshape(%12, to=[1])
#   %14: node[64] f32 = pointwise(%0, %13, function=mul, scalars=[])
#   %15: ntype[64] f32 = reduce(%14, via=ntype:node->ntype, op=sum)
#   store @reduce_34 = %5
#   store @reduce_35 = %10
#   store @pointwise_38 = %14
#   store @grad_out_bias = %15
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_bias_kernel(
    n_tiles,
    tiles_node_by_ntype_32_to_4096_ptr,
    reduce_34_parts_ptr,
    order_node_by_ntype_ptr,
    grad_out_ptr,
    saved_pointwise_10_ptr,
    reduce_35_parts_ptr,
    x_ptr,
    pointwise_38_ptr,
    pointwise_36_ptr,
    grad_out_bias_parts_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of ntype, over its rows of node (ntype:node->ntype): sum, mul, sum over features. Stores
    reduce_34, reduce_35, pointwise_38, grad_out_bias.
    """
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(tiles_node_by_ntype_32_to_4096_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(tiles_node_by_ntype_32_to_4096_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    owner = tl.load(tiles_node_by_ntype_32_to_4096_ptr + tile, mask=valid, other=0).to(tl.int64)
    pointwise_36 = tl.load(pointwise_36_ptr + owner, mask=valid, other=0.0)
    total = tl.full((OWNERS, MEMBERS, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 1), 0, tl.float32)
    total_3 = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of node, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=present, other=0).to(tl.int64)
        grad_out = tl.load(grad_out_ptr + number * 64 + f0, mask=present, other=0.0)
        saved_pointwise_10 = tl.load(saved_pointwise_10_ptr + number * 64 + f0, mask=present, other=0.0)
        total += tl.where(present, sum_along(grad_out * saved_pointwise_10, 2), 0)
        x = tl.load(x_ptr + number * 64 + f0, mask=present, other=0.0)
        total_2 += tl.where(present, sum_along(grad_out * x, 2), 0)
        mul = grad_out * pointwise_36
        total_3 += tl.where(present, mul, 0)
        tl.store(pointwise_38_ptr + number * 64 + f0, mul, mask=present)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    total_3 = sum_along(total_3, 1)
    tl.store(reduce_34_parts_ptr + tile, total, mask=valid)
    tl.store(reduce_35_parts_ptr + tile, total_2, mask=valid)
    tl.store(grad_out_bias_parts_ptr + tile * 64 + f0, total_3, mask=valid)


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_out_bias_kernel_reduce_34_of_parts(
    reduce_34_parts_ptr,
    reduce_34_ptr,
    starts_of_tiles_node_by_ntype_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1)
        part = tl.load(reduce_34_parts_ptr + at.to(tl.int64) * 1 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(reduce_34_ptr + owner.to(tl.int64) * 1 + lane, result, mask=lane < 1)


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_out_bias_kernel_reduce_35_of_parts(
    reduce_35_parts_ptr,
    reduce_35_ptr,
    starts_of_tiles_node_by_ntype_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1)
        part = tl.load(reduce_35_parts_ptr + at.to(tl.int64) * 1 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(reduce_35_ptr + owner.to(tl.int64) * 1 + lane, result, mask=lane < 1)


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_out_bias_kernel_grad_out_bias_of_parts(
    grad_out_bias_parts_ptr,
    grad_out_bias_ptr,
    starts_of_tiles_node_by_ntype_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner + 1)
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


# traversal grad_skip_kernel(owner=ntype, via=none) {
#   %0: ntype[1] f32 = load(buffer=@reduce_34, via=none, at=ntype)
#   %1: ntype[1] f32 = load(buffer=@reduce_35, via=none, at=ntype)
#   %2: ntype[1] f32 = pointwise(%0, %1, function=sub, scalars=[])
#   %3: ntype[] f32 = reshape(%2, to=[])
#   %4: ntype[] f32 = load(buffer=@pointwise_36, via=none, at=ntype)
#   %5: ntype[] f32 = constant(at=ntype, value=1.0, to=f32)
#   %6: ntype[] f32 = pointwise(%5, %4, function=sub, scalars=[])
#   %7: ntype[] f32 = pointwise(%4, %6, function=mul, scalars=[])
#   %8: ntype[] f32 = pointwise(%3, %7, function=mul, scalars=[])
#   store @grad_skip = %8
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_backward_grad_skip_kernel(
    n_ntype,
    grad_skip_ptr,
    reduce_34_ptr,
    reduce_35_ptr,
    pointwise_36_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: sub, mul. Stores grad_skip."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n_ntype
    reduce_34 = tl.load(reduce_34_ptr + row, mask=valid, other=0.0)
    reduce_35 = tl.load(reduce_35_ptr + row, mask=valid, other=0.0)
    pointwise_36 = tl.load(pointwise_36_ptr + row, mask=valid, other=0.0)
    tl.store(grad_skip_ptr + row, (reduce_34 - reduce_35) * (pointwise_36 * (1.0 - pointwise_36)), mask=valid)


# gemm linear_39_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@pointwise_38, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@out_weight, via=ntype:node->ntype, transpose=true)
#   %2: node[4,16] f32 = load(buffer=@saved_pointwise_8, via=none, at=node)
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
#   store @pointwise_40 = %19
#   store @feature_reduce_41 = %22
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_39_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    pointwise_40_ptr,
    pointwise_38_ptr,
    out_weight_ptr,
    saved_pointwise_8_ptr,
    feature_reduce_41_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: pointwise_38 times out_weight transposed of the row's ntype; mul, erf, add, square, exp,
    sum over features. Stores pointwise_40, feature_reduce_41.
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
        pointwise_38 = tl.load(pointwise_38_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None, None]
        out_weight = tl.load(out_weight_ptr + ntype * 4096 + (f0 * 1024 + f1 * 64 + k_2))
        left = tl.reshape(pointwise_38, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(out_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 4, 16))
    at = f0 * 16 + f1
    saved_pointwise_8 = tl.load(saved_pointwise_8_ptr + number * 64 + at, mask=valid, other=0.0)
    add = ((tl.erf(saved_pointwise_8 * 0.7071067811865476) + 1.0) * 0.5) + (saved_pointwise_8 * (tl.exp((saved_pointwise_8 * saved_pointwise_8) * (-0.5)) * 0.3989422804014327))
    mul = product * add
    tl.store(pointwise_40_ptr + number * 64 + at, mul, mask=valid)
    tl.store(feature_reduce_41_ptr + number * 4 + f0, sum_along(mul * saved_pointwise_8, 2), mask=valid)


# gemm_reduce grad_out_weight_kernel(via=ntype:node->ntype, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@saved_pointwise_9, via=none, at=node)
#   %1: node[64] f32 = load(buffer=@pointwise_38, via=none, at=node)
#   left %0
#   right %1
#   store @grad_out_weight
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_out_weight_kernel(
    tiles_node_by_ntype_32_to_1024_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    saved_pointwise_9_ptr,
    pointwise_38_ptr,
    grad_out_weight_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of each ntype of saved_pointwise_9 by pointwise_38, for every tile on its own.
    Stores grad_out_weight.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_ntype_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
        saved_pointwise_9 = tl.load(saved_pointwise_9_ptr + number * 64 + k, mask=valid, other=0.0)
        pointwise_38 = tl.load(pointwise_38_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(saved_pointwise_9, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(pointwise_38, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_out_weight_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_out_weight_kernel_of_parts(
    grad_out_weight_parts_ptr,
    grad_out_weight_ptr,
    starts_of_tiles_node_by_ntype_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_out_weight_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner + 1)
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


# traversal pointwise_44_kernel(owner=rel, via=none) {
#   %0: rel[4,16,16] f32 = load(buffer=@att, via=none, at=rel)
#   %1: rel[4] f32 = load(buffer=@prior, via=none, at=rel)
#   %2: rel[4,1,1] f32 = reshape(%1, to=[4, 1, 1])
#   %3: rel[4,16,16] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   store @pointwise_44 = %3
# }
@triton.jit(do_not_specialize=["n_rel"])
def HGTConv_backward_pointwise_44_kernel(
    n_rel,
    pointwise_44_ptr,
    att_ptr,
    prior_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul. Stores pointwise_44."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = tl.arange(0, 4)[None, :, None, None]
    f1 = tl.arange(0, 16)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 256 + f1 * 16 + f2
    valid = row < n_rel
    att = tl.load(att_ptr + row * 1024 + at, mask=valid, other=0.0)
    prior = tl.load(prior_ptr + row * 4 + f0, mask=valid, other=0.0)
    tl.store(pointwise_44_ptr + row * 1024 + at, att * prior, mask=valid)


# traversal reduce_43_kernel(owner=src_rel, via=src_rel:edge->src_rel) {
#   %0: edge[4] f32 = load(buffer=@saved_feature_reduce_3, via=none, at=edge)
#   %1: edge[] f32 = constant(at=edge, value=0.25, to=f32)
#   %2: edge[4] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: edge[4] f32 = load(buffer=@saved_reduce_4, via=dst:edge->node, at=edge)
#   %4: edge[4] f32 = pointwise(%2, %3, function=sub, scalars=[])
#   %5: edge[4] f32 = pointwise(%4, function=exp, scalars=[])
#   %6: edge[4] f32 = load(buffer=@saved_pointwise_7, via=dst:edge->node, at=edge)
#   %7: edge[4] f32 = pointwise(%5, %6, function=mul, scalars=[])
#   %8: edge[64] f32 = load(buffer=@pointwise_40, via=dst:edge->node, at=edge)
#   %9: edge[4,16] f32 = reshape(%8, to=[4, 16])
#   %10: src_rel[4,16] f32 = load(buffer=@saved_linear_6, via=none, at=src_rel)
#   %11: edge[4,16] f32 = lift(%10, via=src_rel:edge->src_rel)
#   %12: edge[4,16] f32 = pointwise(%9, %11, function=mul, scalars=[])
#   %13: edge[4] f32 = feature_reduce(%12, op=sum, axes=[1])
#   %14: edge[4] f32 = load(buffer=@feature_reduce_41, via=dst:edge->node, at=edge)
#   %15: edge[4] f32 = pointwise(%13, %14, function=sub, scalars=[])
#   %16: edge[4] f32 = pointwise(%7, %15, function=mul, scalars=[])
#   %17: edge[4] f32 = pointwise(%16, %1, function=mul, scalars=[])
#   %18: edge[4,1] f32 = reshape(%7, to=[4, 1])
#   %19: edge[4,16] f32 = pointwise(%9, %18, function=mul, scalars=[])
#   %20: src_rel[4,16] f32 = reduce(%19, via=src_rel:edge->src_rel, op=sum)
#   %21: edge[4,1] f32 = reshape(%17, to=[4, 1])
#   %22: edge[64] f32 = load(buffer=@saved_pointwise_2, via=dst:edge->node, at=edge)
#   %23: edge[4,16] f32 = reshape(%22, to=[4, 16])
#   %24: edge[4,16] f32 = pointwise(%21, %23, function=mul, scalars=[])
#   %25: src_rel[4,16] f32 = reduce(%24, via=src_rel:edge->src_rel, op=sum)
#   store @pointwise_42 = %17
#   store @reduce_48 = %20
#   store @reduce_43 = %25
# }
@triton.jit(do_not_specialize=["n_src_rel", "most_members"])
def HGTConv_backward_reduce_43_kernel(
    n_src_rel,
    segments_edge_by_src_rel_ptr,
    most_members,
    order_edge_by_src_rel_ptr,
    pointwise_42_ptr,
    saved_feature_reduce_3_ptr,
    dst_of_edge_by_src_rel_ptr,
    saved_reduce_4_ptr,
    saved_pointwise_7_ptr,
    pointwise_40_ptr,
    saved_linear_6_ptr,
    feature_reduce_41_ptr,
    reduce_48_ptr,
    reduce_43_ptr,
    saved_pointwise_2_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of src_rel, over its rows of edge (src_rel:edge->src_rel): sum, mul, sub, exp, sum over features.
    Stores pointwise_42, reduce_48, reduce_43.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_src_rel
    begin = tl.load(segments_edge_by_src_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_src_rel_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    saved_linear_6 = tl.load(saved_linear_6_ptr + owner * 64 + at, mask=valid, other=0.0)
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end_2
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_40_dst = tl.load(pointwise_40_ptr + dst * 64 + at, mask=present, other=0.0)
        number = tl.load(order_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_feature_reduce_3 = tl.load(saved_feature_reduce_3_ptr + number * 4 + f0, mask=present, other=0.0)
        saved_reduce_4_dst = tl.load(saved_reduce_4_ptr + dst * 4 + f0, mask=present, other=0.0)
        saved_pointwise_7_dst = tl.load(saved_pointwise_7_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul = tl.exp((saved_feature_reduce_3 * 0.25) - saved_reduce_4_dst) * saved_pointwise_7_dst
        total += tl.where(present, pointwise_40_dst * mul, 0)
        feature_reduce_41_dst = tl.load(feature_reduce_41_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul_2 = (mul * (sum_along(pointwise_40_dst * saved_linear_6, 3) - feature_reduce_41_dst)) * 0.25
        saved_pointwise_2_dst = tl.load(saved_pointwise_2_ptr + dst * 64 + at, mask=present, other=0.0)
        total_2 += tl.where(present, mul_2 * saved_pointwise_2_dst, 0)
        tl.store(pointwise_42_ptr + number * 4 + f0, mul_2, mask=present)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    stored = valid & is_short
    tl.store(reduce_48_ptr + owner * 64 + at, total, mask=stored)
    tl.store(reduce_43_ptr + owner * 64 + at, total_2, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_reduce_43_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_src_rel_ptr,
    order_edge_by_src_rel_ptr,
    pointwise_42_ptr,
    saved_feature_reduce_3_ptr,
    dst_of_edge_by_src_rel_ptr,
    saved_reduce_4_ptr,
    saved_pointwise_7_ptr,
    pointwise_40_ptr,
    saved_linear_6_ptr,
    feature_reduce_41_ptr,
    saved_pointwise_2_ptr,
    reduce_43_kernel_hub_sum_0_ptr,
    reduce_43_kernel_hub_sum_1_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_edge_by_src_rel_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_edge_by_src_rel_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    owner = tl.load(hubs_edge_by_src_rel_ptr + tile, mask=valid, other=0).to(tl.int64)
    saved_linear_6 = tl.load(saved_linear_6_ptr + owner * 64 + at, mask=valid, other=0.0)
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_40_dst = tl.load(pointwise_40_ptr + dst * 64 + at, mask=present, other=0.0)
        number = tl.load(order_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_feature_reduce_3 = tl.load(saved_feature_reduce_3_ptr + number * 4 + f0, mask=present, other=0.0)
        saved_reduce_4_dst = tl.load(saved_reduce_4_ptr + dst * 4 + f0, mask=present, other=0.0)
        saved_pointwise_7_dst = tl.load(saved_pointwise_7_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul = tl.exp((saved_feature_reduce_3 * 0.25) - saved_reduce_4_dst) * saved_pointwise_7_dst
        total += tl.where(present, pointwise_40_dst * mul, 0)
        feature_reduce_41_dst = tl.load(feature_reduce_41_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul_2 = (mul * (sum_along(pointwise_40_dst * saved_linear_6, 3) - feature_reduce_41_dst)) * 0.25
        saved_pointwise_2_dst = tl.load(saved_pointwise_2_ptr + dst * 64 + at, mask=present, other=0.0)
        total_2 += tl.where(present, mul_2 * saved_pointwise_2_dst, 0)
        tl.store(pointwise_42_ptr + number * 4 + f0, mul_2, mask=present)
    total = sum_along(total, 1)
    tl.store(reduce_43_kernel_hub_sum_0_ptr + tile * 64 + f0 * 16 + f1, total, mask=valid)
    total_2 = sum_along(total_2, 1)
    tl.store(reduce_43_kernel_hub_sum_1_ptr + tile * 64 + f0 * 16 + f1, total_2, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_reduce_43_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_src_rel_ptr,
    reduce_48_ptr,
    reduce_43_ptr,
    reduce_43_kernel_hub_sum_0_ptr,
    reduce_43_kernel_hub_sum_1_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_edge_by_src_rel_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_edge_by_src_rel_ptr + 4 * n_tiles + tile, mask=valid, other=0)
    is_first = tile == first_tile
    stored = valid & is_first
    after = tl.where(stored, end_tile, first_tile)
    tiles = longest_of(first_tile, after, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted = part < after
        total += tl.load(reduce_43_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted, other=0)
        total_2 += tl.load(reduce_43_kernel_hub_sum_1_ptr + part.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted, other=0)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    owner = tl.load(hubs_edge_by_src_rel_ptr + tile, mask=valid, other=0).to(tl.int64)
    at = f0 * 16 + f1
    tl.store(reduce_48_ptr + owner * 64 + at, total, mask=stored)
    tl.store(reduce_43_ptr + owner * 64 + at, total_2, mask=stored)


# gemm linear_49_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[4,16] f32 = load(buffer=@reduce_48, via=none, at=src_rel)
#   %1: src_rel[4,16] f32 = product(%0, w=@msg, via=rel:src_rel->rel, transpose=true)
#   store @linear_49 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_49_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_49_ptr,
    reduce_48_ptr,
    msg_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: reduce_48 times msg transposed of the row's rel. Stores linear_49."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    number = position.to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    k = tl.arange(0, DEPTH)[None, :, None]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    # The row's matrices one after the other.
    for head in tl.static_range(4):
        matrix = head
        total = tl.full((ROWS, 16), 0, tl.float32)
        reduce_48 = tl.load(reduce_48_ptr + number * 64 + (matrix * 16 + k), mask=valid, other=0.0)
        msg = tl.load(msg_ptr + rel * 1024 + (matrix * 256 + f1 * 16 + k_2))
        left = tl.reshape(reduce_48, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(msg, (DEPTH, 16)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        product = tl.reshape(total, (ROWS, 1, 16))
        tl.store(linear_49_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# gemm_reduce outer_reduce_55_kernel(via=rel:src_rel->rel, shared=false, schedule={tile_rows=1024}) {
#   %0: src_rel[64] f32 = load(buffer=@saved_pointwise_0, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[4,16] f32 = reshape(%0, to=[4, 16])
#   %2: src_rel[4,16] f32 = load(buffer=@reduce_43, via=none, at=src_rel)
#   left %1
#   right %2
#   store @outer_reduce_55
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_outer_reduce_55_kernel(
    tiles_src_rel_by_rel_32_to_1024_ptr,
    n_tiles,
    src_of_src_rel_ptr,
    saved_pointwise_0_ptr,
    reduce_43_ptr,
    outer_reduce_55_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of src_rel of each rel of saved_pointwise_0 by reduce_43, for every tile on its own.
    Stores outer_reduce_55.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_src_rel_by_rel_32_to_1024_ptr + 2 * n_tiles + tile)
    matrix = tl.program_id(2)
    k = tl.arange(0, DEPTH)[None, None, :]
    n = tl.arange(0, COLUMNS)[None, None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None, None]
        valid = position < end
        src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
        saved_pointwise_0_src = tl.load(saved_pointwise_0_ptr + src * 64 + (matrix * 16 + k), mask=valid, other=0.0)
        number = position.to(tl.int64)
        reduce_43 = tl.load(reduce_43_ptr + number * 64 + (matrix * 16 + n), mask=valid, other=0.0)
        left = tl.trans(tl.reshape(saved_pointwise_0_src, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_43, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = outer_reduce_55_parts_ptr + tile.to(tl.int64) * 1024 + tl.program_id(2) * 256
    tl.store(part + to_k * 16 + to_n, total, mask=(to_k < 16) & (to_n < 16))


@triton.jit(do_not_specialize=[])
def HGTConv_backward_outer_reduce_55_kernel_of_parts(
    outer_reduce_55_parts_ptr,
    outer_reduce_55_ptr,
    starts_of_tiles_src_rel_by_rel_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of outer_reduce_55_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 1024)
        part = tl.load(outer_reduce_55_parts_ptr + at.to(tl.int64) * 1024 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(outer_reduce_55_ptr + owner.to(tl.int64) * 1024 + lane, result, mask=lane < 1024)


# gemm linear_45_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[4,16] f32 = load(buffer=@reduce_43, via=none, at=src_rel)
#   %1: src_rel[4,16] f32 = product(%0, w=@pointwise_44, via=rel:src_rel->rel, transpose=true)
#   store @linear_45 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_45_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_45_ptr,
    reduce_43_ptr,
    pointwise_44_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: reduce_43 times pointwise_44 transposed of the row's rel. Stores linear_45."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    number = position.to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    k = tl.arange(0, DEPTH)[None, :, None]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    # The row's matrices one after the other.
    for head in tl.static_range(4):
        matrix = head
        total = tl.full((ROWS, 16), 0, tl.float32)
        reduce_43 = tl.load(reduce_43_ptr + number * 64 + (matrix * 16 + k), mask=valid, other=0.0)
        pointwise_44 = tl.load(pointwise_44_ptr + rel * 1024 + (matrix * 256 + f1 * 16 + k_2))
        left = tl.reshape(reduce_43, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(pointwise_44, (DEPTH, 16)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        product = tl.reshape(total, (ROWS, 1, 16))
        tl.store(linear_45_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# traversal reduce_46_kernel(owner=node, via=src:src_rel->node) {
#   %0: src_rel[4,16] f32 = load(buffer=@linear_49, via=none, at=src_rel)
#   %1: node[4,16] f32 = reduce(%0, via=src:src_rel->node, op=sum)
#   %2: src_rel[4,16] f32 = load(buffer=@linear_45, via=none, at=src_rel)
#   %3: node[4,16] f32 = reduce(%2, via=src:src_rel->node, op=sum)
#   store @reduce_50 = %1
#   store @reduce_46 = %3
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def HGTConv_backward_reduce_46_kernel(
    n_node,
    segments_src_rel_by_src_ptr,
    most_members,
    reduce_50_ptr,
    order_src_rel_by_src_ptr,
    linear_49_ptr,
    reduce_46_ptr,
    linear_45_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of src_rel (src:src_rel->node): sum. Stores reduce_50, reduce_46."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_node
    begin = tl.load(segments_src_rel_by_src_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_src_rel_by_src_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of src_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end_2
        number = tl.load(order_src_rel_by_src_ptr + position, mask=present, other=0).to(tl.int64)
        linear_49 = tl.load(linear_49_ptr + number * 64 + at, mask=present, other=0.0)
        total += linear_49
        linear_45 = tl.load(linear_45_ptr + number * 64 + at, mask=present, other=0.0)
        total_2 += linear_45
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    stored = valid & is_short
    tl.store(reduce_50_ptr + owner * 64 + at, total, mask=stored)
    tl.store(reduce_46_ptr + owner * 64 + at, total_2, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_reduce_46_kernel_of_hubs_1(
    n_tiles,
    hubs_src_rel_by_src_ptr,
    order_src_rel_by_src_ptr,
    linear_49_ptr,
    linear_45_ptr,
    reduce_46_kernel_hub_sum_0_ptr,
    reduce_46_kernel_hub_sum_1_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_src_rel_by_src_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_src_rel_by_src_ptr + 2 * n_tiles + tile, mask=valid, other=0)
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
        linear_49 = tl.load(linear_49_ptr + number * 64 + at, mask=present, other=0.0)
        total += linear_49
        linear_45 = tl.load(linear_45_ptr + number * 64 + at, mask=present, other=0.0)
        total_2 += linear_45
    total = sum_along(total, 1)
    tl.store(reduce_46_kernel_hub_sum_0_ptr + tile * 64 + f0 * 16 + f1, total, mask=valid)
    total_2 = sum_along(total_2, 1)
    tl.store(reduce_46_kernel_hub_sum_1_ptr + tile * 64 + f0 * 16 + f1, total_2, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_reduce_46_kernel_of_hubs(
    n_tiles,
    hubs_src_rel_by_src_ptr,
    reduce_50_ptr,
    reduce_46_ptr,
    reduce_46_kernel_hub_sum_0_ptr,
    reduce_46_kernel_hub_sum_1_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_src_rel_by_src_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_src_rel_by_src_ptr + 4 * n_tiles + tile, mask=valid, other=0)
    is_first = tile == first_tile
    stored = valid & is_first
    after = tl.where(stored, end_tile, first_tile)
    tiles = longest_of(first_tile, after, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted = part < after
        total += tl.load(reduce_46_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted, other=0)
        total_2 += tl.load(reduce_46_kernel_hub_sum_1_ptr + part.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted, other=0)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    owner = tl.load(hubs_src_rel_by_src_ptr + tile, mask=valid, other=0).to(tl.int64)
    at = f0 * 16 + f1
    tl.store(reduce_50_ptr + owner * 64 + at, total, mask=stored)
    tl.store(reduce_46_ptr + owner * 64 + at, total_2, mask=stored)


# gemm_reduce grad_msg_kernel(via=rel:src_rel->rel, shared=false, schedule={tile_rows=1024}) {
#   %0: src_rel[64] f32 = load(buffer=@saved_pointwise_5, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[4,16] f32 = reshape(%0, to=[4, 16])
#   %2: src_rel[4,16] f32 = load(buffer=@reduce_48, via=none, at=src_rel)
#   left %1
#   right %2
#   store @grad_msg
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_msg_kernel(
    tiles_src_rel_by_rel_32_to_1024_ptr,
    n_tiles,
    src_of_src_rel_ptr,
    saved_pointwise_5_ptr,
    reduce_48_ptr,
    grad_msg_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of src_rel of each rel of saved_pointwise_5 by reduce_48, for every tile on its own.
    Stores grad_msg.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_src_rel_by_rel_32_to_1024_ptr + 2 * n_tiles + tile)
    matrix = tl.program_id(2)
    k = tl.arange(0, DEPTH)[None, None, :]
    n = tl.arange(0, COLUMNS)[None, None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None, None]
        valid = position < end
        src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
        saved_pointwise_5_src = tl.load(saved_pointwise_5_ptr + src * 64 + (matrix * 16 + k), mask=valid, other=0.0)
        number = position.to(tl.int64)
        reduce_48 = tl.load(reduce_48_ptr + number * 64 + (matrix * 16 + n), mask=valid, other=0.0)
        left = tl.trans(tl.reshape(saved_pointwise_5_src, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_48, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_msg_parts_ptr + tile.to(tl.int64) * 1024 + tl.program_id(2) * 256
    tl.store(part + to_k * 16 + to_n, total, mask=(to_k < 16) & (to_n < 16))


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_msg_kernel_of_parts(
    grad_msg_parts_ptr,
    grad_msg_ptr,
    starts_of_tiles_src_rel_by_rel_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_msg_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner + 1)
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


# traversal reduce_52_kernel(owner=node, via=dst:edge->node) {
#   %0: edge[4] f32 = load(buffer=@pointwise_42, via=none, at=edge)
#   %1: edge[4,1] f32 = reshape(%0, to=[4, 1])
#   %2: edge[4,16] f32 = load(buffer=@saved_linear_1, via=src_rel:edge->src_rel, at=edge)
#   %3: edge[4,16] f32 = pointwise(%1, %2, function=mul, scalars=[])
#   %4: node[4,16] f32 = reduce(%3, via=dst:edge->node, op=sum)
#   store @reduce_52 = %4
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def HGTConv_backward_reduce_52_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    most_members,
    reduce_52_ptr,
    order_edge_by_dst_ptr,
    pointwise_42_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_linear_1_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): sum, mul. Stores reduce_52."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_node
    begin = tl.load(segments_edge_by_dst_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end_2
        number = tl.load(order_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_42 = tl.load(pointwise_42_ptr + number * 4 + f0, mask=present, other=0.0)
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_linear_1_src_rel = tl.load(saved_linear_1_ptr + src_rel * 64 + at, mask=present, other=0.0)
        total += tl.where(present, pointwise_42 * saved_linear_1_src_rel, 0)
    total = sum_along(total, 1)
    stored = valid & is_short
    tl.store(reduce_52_ptr + owner * 64 + at, total, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_reduce_52_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_dst_ptr,
    order_edge_by_dst_ptr,
    pointwise_42_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_linear_1_ptr,
    reduce_52_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_edge_by_dst_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_edge_by_dst_ptr + 2 * n_tiles + tile, mask=valid, other=0)
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
        pointwise_42 = tl.load(pointwise_42_ptr + number * 4 + f0, mask=present, other=0.0)
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_linear_1_src_rel = tl.load(saved_linear_1_ptr + src_rel * 64 + at, mask=present, other=0.0)
        total += tl.where(present, pointwise_42 * saved_linear_1_src_rel, 0)
    total = sum_along(total, 1)
    tl.store(reduce_52_kernel_hub_sum_0_ptr + tile * 64 + f0 * 16 + f1, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_reduce_52_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_dst_ptr,
    reduce_52_ptr,
    reduce_52_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_edge_by_dst_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_edge_by_dst_ptr + 4 * n_tiles + tile, mask=valid, other=0)
    is_first = tile == first_tile
    stored = valid & is_first
    after = tl.where(stored, end_tile, first_tile)
    tiles = longest_of(first_tile, after, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted = part < after
        total += tl.load(reduce_52_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_edge_by_dst_ptr + tile, mask=valid, other=0).to(tl.int64)
    at = f0 * 16 + f1
    tl.store(reduce_52_ptr + owner * 64 + at, total, mask=stored)


# traversal grad_prior_kernel(owner=rel, via=none) {
#   %0: rel[4,16,16] f32 = load(buffer=@outer_reduce_55, via=none, at=rel)
#   %1: rel[4] f32 = load(buffer=@prior, via=none, at=rel)
#   %2: rel[4,1,1] f32 = reshape(%1, to=[4, 1, 1])
#   %3: rel[4,16,16] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   %4: rel[4,16,16] f32 = load(buffer=@att, via=none, at=rel)
#   %5: rel[4,16,16] f32 = pointwise(%0, %4, function=mul, scalars=[])
#   %6: rel[4] f32 = feature_reduce(%5, op=sum, axes=[1, 2])
#   store @grad_att = %3
#   store @grad_prior = %6
# }
@triton.jit(do_not_specialize=["n_rel"])
def HGTConv_backward_grad_prior_kernel(
    n_rel,
    grad_att_ptr,
    outer_reduce_55_ptr,
    prior_ptr,
    grad_prior_ptr,
    att_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul, sum over features. Stores grad_att, grad_prior."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = tl.arange(0, 4)[None, :, None, None]
    f1 = tl.arange(0, 16)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 256 + f1 * 16 + f2
    valid = row < n_rel
    outer_reduce_55 = tl.load(outer_reduce_55_ptr + row * 1024 + at, mask=valid, other=0.0)
    prior = tl.load(prior_ptr + row * 4 + f0, mask=valid, other=0.0)
    tl.store(grad_att_ptr + row * 1024 + at, outer_reduce_55 * prior, mask=valid)
    att = tl.load(att_ptr + row * 1024 + at, mask=valid, other=0.0)
    tl.store(grad_prior_ptr + row * 4 + f0, sum_along(sum_along(outer_reduce_55 * att, 3), 2), mask=valid)


# gemm linear_51_kernel(schedule={tile_rows=32}) {
#   %0: node[4,16] f32 = load(buffer=@reduce_50, via=none, at=node)
#   %1: node[64] f32 = reshape(%0, to=[64])
#   %2: node[64] f32 = product(%1, w=@v_weight, via=ntype:node->ntype, transpose=true)
#   store @linear_51 = %2
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_51_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_51_ptr,
    reduce_50_ptr,
    v_weight_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: reduce_50 times v_weight transposed of the row's ntype. Stores linear_51."""
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
        reduce_50 = tl.load(reduce_50_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        v_weight = tl.load(v_weight_ptr + ntype * 4096 + (f0 * 64 + k_2))
        left = tl.reshape(reduce_50, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(v_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_51_ptr + number * 64 + f0, product, mask=valid)


# gemm_reduce grad_k_weight_kernel(via=ntype:node->ntype, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[4,16] f32 = load(buffer=@reduce_46, via=none, at=node)
#   %2: node[64] f32 = reshape(%1, to=[64])
#   left %0
#   right %2
#   store @grad_k_weight
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_k_weight_kernel(
    tiles_node_by_ntype_32_to_1024_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    x_ptr,
    reduce_46_ptr,
    grad_k_weight_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of each ntype of x by reduce_46, for every tile on its own. Stores
    grad_k_weight.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_ntype_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        reduce_46 = tl.load(reduce_46_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_46, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_k_weight_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_k_weight_kernel_of_parts(
    grad_k_weight_parts_ptr,
    grad_k_weight_ptr,
    starts_of_tiles_node_by_ntype_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_k_weight_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(grad_k_weight_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_k_weight_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)


# traversal grad_v_bias_kernel(owner=ntype, via=ntype:node->ntype, schedule={split=4096}) {
#   %0: node[4,16] f32 = load(buffer=@reduce_46, via=none, at=node)
#   %1: node[64] f32 = reshape(%0, to=[64])
#   %2: ntype[64] f32 = reduce(%1, via=ntype:node->ntype, op=sum)
#   %3: node[4,16] f32 = load(buffer=@reduce_52, via=none, at=node)
#   %4: node[64] f32 = reshape(%3, to=[64])
#   %5: ntype[64] f32 = reduce(%4, via=ntype:node->ntype, op=sum)
#   %6: node[4,16] f32 = load(buffer=@reduce_50, via=none, at=node)
#   %7: node[64] f32 = reshape(%6, to=[64])
#   %8: ntype[64] f32 = reduce(%7, via=ntype:node->ntype, op=sum)
#   store @grad_k_bias = %2
#   store @grad_q_bias = %5
#   store @grad_v_bias = %8
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_v_bias_kernel(
    n_tiles,
    tiles_node_by_ntype_32_to_4096_ptr,
    grad_k_bias_parts_ptr,
    order_node_by_ntype_ptr,
    reduce_46_ptr,
    grad_q_bias_parts_ptr,
    reduce_52_ptr,
    grad_v_bias_parts_ptr,
    reduce_50_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of ntype, over its rows of node (ntype:node->ntype): sum. Stores grad_k_bias, grad_q_bias,
    grad_v_bias.
    """
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(tiles_node_by_ntype_32_to_4096_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(tiles_node_by_ntype_32_to_4096_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    total_3 = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of node, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=present, other=0).to(tl.int64)
        reduce_46 = tl.load(reduce_46_ptr + number * 64 + f0, mask=present, other=0.0)
        total += reduce_46
        reduce_52 = tl.load(reduce_52_ptr + number * 64 + f0, mask=present, other=0.0)
        total_2 += reduce_52
        reduce_50 = tl.load(reduce_50_ptr + number * 64 + f0, mask=present, other=0.0)
        total_3 += reduce_50
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    total_3 = sum_along(total_3, 1)
    tl.store(grad_k_bias_parts_ptr + tile * 64 + f0, total, mask=valid)
    tl.store(grad_q_bias_parts_ptr + tile * 64 + f0, total_2, mask=valid)
    tl.store(grad_v_bias_parts_ptr + tile * 64 + f0, total_3, mask=valid)


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_v_bias_kernel_grad_k_bias_of_parts(
    grad_k_bias_parts_ptr,
    grad_k_bias_ptr,
    starts_of_tiles_node_by_ntype_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_v_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 64)
        part = tl.load(grad_k_bias_parts_ptr + at.to(tl.int64) * 64 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_k_bias_ptr + owner.to(tl.int64) * 64 + lane, result, mask=lane < 64)


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_v_bias_kernel_grad_q_bias_of_parts(
    grad_q_bias_parts_ptr,
    grad_q_bias_ptr,
    starts_of_tiles_node_by_ntype_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_v_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 64)
        part = tl.load(grad_q_bias_parts_ptr + at.to(tl.int64) * 64 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_q_bias_ptr + owner.to(tl.int64) * 64 + lane, result, mask=lane < 64)


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_v_bias_kernel_grad_v_bias_of_parts(
    grad_v_bias_parts_ptr,
    grad_v_bias_ptr,
    starts_of_tiles_node_by_ntype_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_v_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 64)
        part = tl.load(grad_v_bias_parts_ptr + at.to(tl.int64) * 64 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_v_bias_ptr + owner.to(tl.int64) * 64 + lane, result, mask=lane < 64)


# gemm linear_54_kernel(schedule={tile_rows=32}) {
#   %0: node[4,16] f32 = load(buffer=@reduce_46, via=none, at=node)
#   %1: node[64] f32 = reshape(%0, to=[64])
#   %2: node[64] f32 = product(%1, w=@k_weight, via=ntype:node->ntype, transpose=true)
#   store @linear_54 = %2
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_54_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_54_ptr,
    reduce_46_ptr,
    k_weight_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: reduce_46 times k_weight transposed of the row's ntype. Stores linear_54."""
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
        reduce_46 = tl.load(reduce_46_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        k_weight = tl.load(k_weight_ptr + ntype * 4096 + (f0 * 64 + k_2))
        left = tl.reshape(reduce_46, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(k_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_54_ptr + number * 64 + f0, product, mask=valid)


# gemm linear_53_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: node[1] f32 = load(buffer=@pointwise_47, via=ntype:node->ntype, at=node)
#   %2: node[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: node[64] f32 = load(buffer=@linear_51, via=none, at=node)
#   %4: node[64] f32 = pointwise(%2, %3, function=add, scalars=[])
#   %5: node[4,16] f32 = load(buffer=@reduce_52, via=none, at=node)
#   %6: node[64] f32 = reshape(%5, to=[64])
#   %7: node[64] f32 = product(%6, w=@q_weight, via=ntype:node->ntype, transpose=true)
#   %8: node[64] f32 = pointwise(%4, %7, function=add, scalars=[])
#   %9: node[64] f32 = load(buffer=@linear_54, via=none, at=node)
#   %10: node[64] f32 = pointwise(%8, %9, function=add, scalars=[])
#   store @grad_x = %10
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_linear_53_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    grad_x_ptr,
    grad_out_ptr,
    pointwise_47_ptr,
    linear_51_ptr,
    reduce_52_ptr,
    q_weight_ptr,
    linear_54_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: reduce_52 times q_weight transposed of the row's ntype; mul, add. Stores grad_x."""
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
        reduce_52 = tl.load(reduce_52_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        q_weight = tl.load(q_weight_ptr + ntype * 4096 + (f0 * 64 + k_2))
        left = tl.reshape(reduce_52, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(q_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    grad_out = tl.load(grad_out_ptr + number * 64 + f0, mask=valid, other=0.0)
    pointwise_47_ntype = tl.load(pointwise_47_ptr + ntype)
    linear_51 = tl.load(linear_51_ptr + number * 64 + f0, mask=valid, other=0.0)
    linear_54 = tl.load(linear_54_ptr + number * 64 + f0, mask=valid, other=0.0)
    tl.store(grad_x_ptr + number * 64 + f0, (((grad_out * pointwise_47_ntype) + linear_51) + product) + linear_54, mask=valid)


# gemm_reduce grad_q_weight_kernel(via=ntype:node->ntype, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[4,16] f32 = load(buffer=@reduce_52, via=none, at=node)
#   %2: node[64] f32 = reshape(%1, to=[64])
#   left %0
#   right %2
#   store @grad_q_weight
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_q_weight_kernel(
    tiles_node_by_ntype_32_to_1024_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    x_ptr,
    reduce_52_ptr,
    grad_q_weight_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of each ntype of x by reduce_52, for every tile on its own. Stores
    grad_q_weight.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_ntype_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        reduce_52 = tl.load(reduce_52_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_52, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_q_weight_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_q_weight_kernel_of_parts(
    grad_q_weight_parts_ptr,
    grad_q_weight_ptr,
    starts_of_tiles_node_by_ntype_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_q_weight_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(grad_q_weight_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_q_weight_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)


# gemm_reduce grad_v_weight_kernel(via=ntype:node->ntype, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[4,16] f32 = load(buffer=@reduce_50, via=none, at=node)
#   %2: node[64] f32 = reshape(%1, to=[64])
#   left %0
#   right %2
#   store @grad_v_weight
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_backward_grad_v_weight_kernel(
    tiles_node_by_ntype_32_to_1024_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    x_ptr,
    reduce_50_ptr,
    grad_v_weight_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of each ntype of x by reduce_50, for every tile on its own. Stores
    grad_v_weight.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_ntype_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_ntype_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        number = tl.load(order_node_by_ntype_ptr + position, mask=valid, other=0).to(tl.int64)
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        reduce_50 = tl.load(reduce_50_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_50, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_v_weight_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def HGTConv_backward_grad_v_weight_kernel_of_parts(
    grad_v_weight_parts_ptr,
    grad_v_weight_ptr,
    starts_of_tiles_node_by_ntype_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_v_weight_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_ntype_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(grad_v_weight_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_v_weight_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)
