# Columba: RGATConv_backward
import triton
import triton.language as tl

@triton.jit
def sum_along(x, DIM: tl.constexpr):
    return tl.reduce(x, DIM, tl.standard._sum_combine, keep_dims=True)


@triton.jit
def longest_of(begin, end, OWNERS: tl.constexpr):
    # The most members that an owner of this block has.
    return tl.reduce(tl.reshape(end - begin, (OWNERS,)), 0, tl.standard._elementwise_max)

# traversal grad_bias_kernel(owner=one, via=one:node->one, schedule={split=4096}) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: node[4,16] f32 = reshape(%0, to=[4, 16])
#   %2: node[4,16] f32 = load(buffer=@saved_pointwise_6, via=none, at=node)
#   %3: node[4,16] f32 = pointwise(%1, %2, function=mul, scalars=[])
#   %4: node[4] f32 = feature_reduce(%3, op=sum, axes=[1])
#   %5: one[64] f32 = reduce(%0, via=one:node->one, op=sum)
#   store @feature_reduce_18 = %4
#   store @grad_bias = %5
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_grad_bias_kernel(
    n_tiles,
    tiles_node_by_one_32_to_4096_ptr,
    feature_reduce_18_ptr,
    grad_out_ptr,
    saved_pointwise_6_ptr,
    grad_bias_parts_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For the whole graph, over its rows of node (one:node->one): sum, mul, sum over features. Stores
    feature_reduce_18, grad_bias.
    """
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    begin = tl.load(tiles_node_by_one_32_to_4096_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(tiles_node_by_one_32_to_4096_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of node, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        number = position.to(tl.int64)
        present = position < end
        grad_out = tl.load(grad_out_ptr + number * 64 + at, mask=present, other=0.0)
        total += grad_out
        saved_pointwise_6 = tl.load(saved_pointwise_6_ptr + number * 64 + at, mask=present, other=0.0)
        tl.store(feature_reduce_18_ptr + number * 4 + f0, sum_along(grad_out * saved_pointwise_6, 3), mask=present)
    total = sum_along(total, 1)
    tl.store(grad_bias_parts_ptr + tile * 64 + at, total, mask=valid)


@triton.jit(do_not_specialize=[])
def RGATConv_backward_grad_bias_kernel_grad_bias_of_parts(
    grad_bias_parts_ptr,
    grad_bias_ptr,
    starts_of_tiles_node_by_one_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_bias_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_one_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_one_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 64)
        part = tl.load(grad_bias_parts_ptr + at.to(tl.int64) * 64 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_bias_ptr + owner.to(tl.int64) * 64 + lane, result, mask=lane < 64)


# traversal pointwise_25_kernel(owner=src_rel, via=src_rel:edge->src_rel) {
#   %0: src_rel[4] f32 = load(buffer=@saved_feature_reduce_1, via=none, at=src_rel)
#   %1: edge[4] f32 = lift(%0, via=src_rel:edge->src_rel)
#   %2: edge[4] f32 = load(buffer=@saved_linear_3, via=dst_rel:edge->dst_rel, at=edge)
#   %3: edge[4] f32 = pointwise(%1, %2, function=add, scalars=[])
#   %4: edge[4] f32 = pointwise(%3, function=leaky_relu, scalars=[0.2])
#   %5: edge[4] f32 = load(buffer=@saved_reduce_4, via=dst:edge->node, at=edge)
#   %6: edge[4] f32 = pointwise(%4, %5, function=sub, scalars=[])
#   %7: edge[4] f32 = pointwise(%6, function=exp, scalars=[])
#   %8: edge[4] f32 = load(buffer=@saved_pointwise_5, via=dst:edge->node, at=edge)
#   %9: edge[4] f32 = pointwise(%7, %8, function=mul, scalars=[])
#   %10: edge[64] f32 = load(buffer=@grad_out, via=dst:edge->node, at=edge)
#   %11: edge[4,16] f32 = reshape(%10, to=[4, 16])
#   %12: src_rel[64] f32 = load(buffer=@saved_linear_0, via=none, at=src_rel)
#   %13: edge[64] f32 = lift(%12, via=src_rel:edge->src_rel)
#   %14: edge[4,16] f32 = reshape(%13, to=[4, 16])
#   %15: edge[4,16] f32 = pointwise(%11, %14, function=mul, scalars=[])
#   %16: edge[4] f32 = feature_reduce(%15, op=sum, axes=[1])
#   %17: edge[4] f32 = load(buffer=@feature_reduce_18, via=dst:edge->node, at=edge)
#   %18: edge[4] f32 = pointwise(%16, %17, function=sub, scalars=[])
#   %19: edge[4] f32 = pointwise(%9, %18, function=mul, scalars=[])
#   %20: edge[] f32 = constant(at=edge, value=0.0, to=f32)
#   %21: edge[4] bool = pointwise(%3, %20, function=gt, scalars=[])
#   %22: edge[] f32 = constant(at=edge, value=1.0, to=f32)
#   %23: edge[] f32 = constant(at=edge, value=0.2, to=f32)
#   %24: edge[4] f32 = pointwise(%21, %22, %23, function=where, scalars=[])
#   %25: edge[4] f32 = pointwise(%19, %24, function=mul, scalars=[])
#   %26: src_rel[4] f32 = reduce(%25, via=src_rel:edge->src_rel, op=sum)
#   %27: edge[4,1] f32 = reshape(%9, to=[4, 1])
#   %28: edge[4,16] f32 = pointwise(%11, %27, function=mul, scalars=[])
#   %29: src_rel[4,16] f32 = reduce(%28, via=src_rel:edge->src_rel, op=sum)
#   %30: src_rel[4,1] f32 = reshape(%26, to=[4, 1])
#   %31: src_rel[4,16] f32 = load(buffer=@att_src, via=rel:src_rel->rel, at=src_rel)
#   %32: src_rel[4,16] f32 = pointwise(%30, %31, function=mul, scalars=[])
#   %33: src_rel[4,16] f32 = pointwise(%29, %32, function=add, scalars=[])
#   store @pointwise_19 = %25
#   store @reduce_24 = %26
#   store @pointwise_25 = %33
# }
@triton.jit(do_not_specialize=["n_src_rel", "most_members"])
def RGATConv_backward_pointwise_25_kernel(
    n_src_rel,
    segments_edge_by_src_rel_ptr,
    most_members,
    order_edge_by_src_rel_ptr,
    pointwise_19_ptr,
    saved_feature_reduce_1_ptr,
    dst_rel_of_edge_by_src_rel_ptr,
    saved_linear_3_ptr,
    dst_of_edge_by_src_rel_ptr,
    saved_reduce_4_ptr,
    saved_pointwise_5_ptr,
    grad_out_ptr,
    saved_linear_0_ptr,
    feature_reduce_18_ptr,
    reduce_24_ptr,
    pointwise_25_ptr,
    rel_of_src_rel_ptr,
    att_src_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of src_rel, over its rows of edge (src_rel:edge->src_rel): sum, add, leaky_relu, sub, exp, mul,
    sum over features, gt, where. Stores pointwise_19, reduce_24, pointwise_25.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_src_rel
    begin = tl.load(segments_edge_by_src_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_src_rel_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    saved_feature_reduce_1 = tl.load(saved_feature_reduce_1_ptr + owner * 4 + f0, mask=valid, other=0.0)
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    saved_linear_0 = tl.load(saved_linear_0_ptr + owner * 64 + at, mask=valid, other=0.0)
    constant = tl.full((1, 1, 1, 1), 1.0, tl.float32)
    constant_2 = tl.full((1, 1, 1, 1), 0.2, tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end_2
        dst_rel = tl.load(dst_rel_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_linear_3_dst_rel = tl.load(saved_linear_3_ptr + dst_rel * 4 + f0, mask=present, other=0.0)
        add = saved_feature_reduce_1 + saved_linear_3_dst_rel
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_reduce_4_dst = tl.load(saved_reduce_4_ptr + dst * 4 + f0, mask=present, other=0.0)
        saved_pointwise_5_dst = tl.load(saved_pointwise_5_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul = tl.exp(tl.where(add > 0, add, add * 0.2) - saved_reduce_4_dst) * saved_pointwise_5_dst
        grad_out_dst = tl.load(grad_out_ptr + dst * 64 + at, mask=present, other=0.0)
        feature_reduce_18_dst = tl.load(feature_reduce_18_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul_2 = (mul * (sum_along(grad_out_dst * saved_linear_0, 3) - feature_reduce_18_dst)) * tl.where(add > 0.0, constant, constant_2)
        total += tl.where(present, mul_2, 0)
        total_2 += tl.where(present, grad_out_dst * mul, 0)
        number = tl.load(order_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        tl.store(pointwise_19_ptr + number * 4 + f0, mul_2, mask=present)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    stored = valid & is_short
    tl.store(reduce_24_ptr + owner * 4 + f0, total, mask=stored)
    rel = tl.load(rel_of_src_rel_ptr + owner, mask=valid, other=0).to(tl.int64)
    att_src_rel = tl.load(att_src_ptr + rel * 64 + at, mask=valid, other=0.0)
    tl.store(pointwise_25_ptr + owner * 64 + at, total_2 + (total * att_src_rel), mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_pointwise_25_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_src_rel_ptr,
    order_edge_by_src_rel_ptr,
    pointwise_19_ptr,
    saved_feature_reduce_1_ptr,
    dst_rel_of_edge_by_src_rel_ptr,
    saved_linear_3_ptr,
    dst_of_edge_by_src_rel_ptr,
    saved_reduce_4_ptr,
    saved_pointwise_5_ptr,
    grad_out_ptr,
    saved_linear_0_ptr,
    feature_reduce_18_ptr,
    pointwise_25_kernel_hub_sum_0_ptr,
    pointwise_25_kernel_hub_sum_1_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_edge_by_src_rel_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_edge_by_src_rel_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    owner = tl.load(hubs_edge_by_src_rel_ptr + tile, mask=valid, other=0).to(tl.int64)
    f0 = tl.arange(0, 4)[None, None, :, None]
    saved_feature_reduce_1 = tl.load(saved_feature_reduce_1_ptr + owner * 4 + f0, mask=valid, other=0.0)
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    saved_linear_0 = tl.load(saved_linear_0_ptr + owner * 64 + at, mask=valid, other=0.0)
    constant = tl.full((1, 1, 1, 1), 1.0, tl.float32)
    constant_2 = tl.full((1, 1, 1, 1), 0.2, tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        dst_rel = tl.load(dst_rel_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_linear_3_dst_rel = tl.load(saved_linear_3_ptr + dst_rel * 4 + f0, mask=present, other=0.0)
        add = saved_feature_reduce_1 + saved_linear_3_dst_rel
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        saved_reduce_4_dst = tl.load(saved_reduce_4_ptr + dst * 4 + f0, mask=present, other=0.0)
        saved_pointwise_5_dst = tl.load(saved_pointwise_5_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul = tl.exp(tl.where(add > 0, add, add * 0.2) - saved_reduce_4_dst) * saved_pointwise_5_dst
        grad_out_dst = tl.load(grad_out_ptr + dst * 64 + at, mask=present, other=0.0)
        feature_reduce_18_dst = tl.load(feature_reduce_18_ptr + dst * 4 + f0, mask=present, other=0.0)
        mul_2 = (mul * (sum_along(grad_out_dst * saved_linear_0, 3) - feature_reduce_18_dst)) * tl.where(add > 0.0, constant, constant_2)
        total += tl.where(present, mul_2, 0)
        total_2 += tl.where(present, grad_out_dst * mul, 0)
        number = tl.load(order_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        tl.store(pointwise_19_ptr + number * 4 + f0, mul_2, mask=present)
    total = sum_along(total, 1)
    tl.store(pointwise_25_kernel_hub_sum_0_ptr + tile * 4 + f0, total, mask=valid)
    total_2 = sum_along(total_2, 1)
    tl.store(pointwise_25_kernel_hub_sum_1_ptr + tile * 64 + f0 * 16 + f1, total_2, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_pointwise_25_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_src_rel_ptr,
    reduce_24_ptr,
    pointwise_25_ptr,
    rel_of_src_rel_ptr,
    att_src_ptr,
    pointwise_25_kernel_hub_sum_0_ptr,
    pointwise_25_kernel_hub_sum_1_ptr,
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
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    f1 = tl.arange(0, 16)[None, None, None, :]
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted = part < after
        total += tl.load(pointwise_25_kernel_hub_sum_0_ptr + part.to(tl.int64) * 4 + f0, mask=counted, other=0)
        total_2 += tl.load(pointwise_25_kernel_hub_sum_1_ptr + part.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted, other=0)
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    owner = tl.load(hubs_edge_by_src_rel_ptr + tile, mask=valid, other=0).to(tl.int64)
    tl.store(reduce_24_ptr + owner * 4 + f0, total, mask=stored)
    at = f0 * 16 + f1
    rel = tl.load(rel_of_src_rel_ptr + owner, mask=valid, other=0).to(tl.int64)
    att_src_rel = tl.load(att_src_ptr + rel * 64 + at, mask=valid, other=0.0)
    tl.store(pointwise_25_ptr + owner * 64 + at, total_2 + (total * att_src_rel), mask=stored)


# gemm linear_26_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[4,16] f32 = load(buffer=@pointwise_25, via=none, at=src_rel)
#   %1: src_rel[64] f32 = reshape(%0, to=[64])
#   %2: src_rel[64] f32 = product(%1, w=@weight, via=rel:src_rel->rel, transpose=true, matrix=[64, 64])
#   store @linear_26 = %2
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_linear_26_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_26_ptr,
    pointwise_25_ptr,
    weight_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: pointwise_25 times weight transposed of the row's rel. Stores linear_26."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None]
    number = position.to(tl.int64)
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 64)[None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        pointwise_25 = tl.load(pointwise_25_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        weight = tl.load(weight_ptr + rel * 4096 + (f0 * 64 + k_2))
        left = tl.reshape(pointwise_25, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_26_ptr + number * 64 + f0, product, mask=valid)


# traversal reduce_27_kernel(owner=node, via=src:src_rel->node) {
#   %0: src_rel[64] f32 = load(buffer=@linear_26, via=none, at=src_rel)
#   %1: node[64] f32 = reduce(%0, via=src:src_rel->node, op=sum)
#   store @reduce_27 = %1
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def RGATConv_backward_reduce_27_kernel(
    n_node,
    segments_src_rel_by_src_ptr,
    most_members,
    reduce_27_ptr,
    order_src_rel_by_src_ptr,
    linear_26_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of src_rel (src:src_rel->node): sum. Stores reduce_27."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = owner < n_node
    begin = tl.load(segments_src_rel_by_src_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_src_rel_by_src_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of src_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end_2
        number = tl.load(order_src_rel_by_src_ptr + position, mask=present, other=0).to(tl.int64)
        linear_26 = tl.load(linear_26_ptr + number * 64 + f0, mask=present, other=0.0)
        total += linear_26
    total = sum_along(total, 1)
    stored = valid & is_short
    tl.store(reduce_27_ptr + owner * 64 + f0, total, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_reduce_27_kernel_of_hubs_1(
    n_tiles,
    hubs_src_rel_by_src_ptr,
    order_src_rel_by_src_ptr,
    linear_26_ptr,
    reduce_27_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_src_rel_by_src_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_src_rel_by_src_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of src_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        number = tl.load(order_src_rel_by_src_ptr + position, mask=present, other=0).to(tl.int64)
        linear_26 = tl.load(linear_26_ptr + number * 64 + f0, mask=present, other=0.0)
        total += linear_26
    total = sum_along(total, 1)
    tl.store(reduce_27_kernel_hub_sum_0_ptr + tile * 64 + f0, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_reduce_27_kernel_of_hubs(
    n_tiles,
    hubs_src_rel_by_src_ptr,
    reduce_27_ptr,
    reduce_27_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_src_rel_by_src_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_src_rel_by_src_ptr + 4 * n_tiles + tile, mask=valid, other=0)
    is_first = tile == first_tile
    stored = valid & is_first
    after = tl.where(stored, end_tile, first_tile)
    tiles = longest_of(first_tile, after, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None]
        counted = part < after
        total += tl.load(reduce_27_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_src_rel_by_src_ptr + tile, mask=valid, other=0).to(tl.int64)
    tl.store(reduce_27_ptr + owner * 64 + f0, total, mask=stored)


# gemm_reduce outer_reduce_29_kernel(via=rel:src_rel->rel, shared=true, schedule={tile_rows=1024}) {
#   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[4,16] f32 = load(buffer=@pointwise_25, via=none, at=src_rel)
#   %2: src_rel[64] f32 = reshape(%1, to=[64])
#   left %0
#   right %2
#   store @outer_reduce_29
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_outer_reduce_29_kernel(
    tiles_src_rel_by_rel_32_to_1024_ptr,
    n_tiles,
    src_of_src_rel_ptr,
    x_ptr,
    pointwise_25_ptr,
    outer_reduce_29_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of src_rel of each rel of x by pointwise_25, for every tile on its own. Stores
    outer_reduce_29.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_src_rel_by_rel_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
        x_src = tl.load(x_ptr + src * 64 + k, mask=valid, other=0.0)
        number = position.to(tl.int64)
        pointwise_25 = tl.load(pointwise_25_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x_src, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(pointwise_25, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = outer_reduce_29_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def RGATConv_backward_outer_reduce_29_kernel_of_parts(
    outer_reduce_29_parts_ptr,
    outer_reduce_29_ptr,
    starts_of_tiles_src_rel_by_rel_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of outer_reduce_29_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(outer_reduce_29_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(outer_reduce_29_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)


# traversal reduce_20_kernel(owner=dst_rel, via=dst_rel:edge->dst_rel) {
#   %0: edge[4] f32 = load(buffer=@pointwise_19, via=none, at=edge)
#   %1: dst_rel[4] f32 = reduce(%0, via=dst_rel:edge->dst_rel, op=sum)
#   store @reduce_20 = %1
# }
@triton.jit(do_not_specialize=["n_dst_rel", "most_members"])
def RGATConv_backward_reduce_20_kernel(
    n_dst_rel,
    segments_edge_by_dst_rel_ptr,
    most_members,
    reduce_20_ptr,
    order_edge_by_dst_rel_ptr,
    pointwise_19_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of dst_rel, over its rows of edge (dst_rel:edge->dst_rel): sum. Stores reduce_20."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = owner < n_dst_rel
    begin = tl.load(segments_edge_by_dst_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_rel_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 4), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end_2
        number = tl.load(order_edge_by_dst_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_19 = tl.load(pointwise_19_ptr + number * 4 + f0, mask=present, other=0.0)
        total += pointwise_19
    total = sum_along(total, 1)
    stored = valid & is_short
    tl.store(reduce_20_ptr + owner * 4 + f0, total, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_reduce_20_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_dst_rel_ptr,
    order_edge_by_dst_rel_ptr,
    pointwise_19_ptr,
    reduce_20_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_edge_by_dst_rel_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_edge_by_dst_rel_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 4), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        number = tl.load(order_edge_by_dst_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_19 = tl.load(pointwise_19_ptr + number * 4 + f0, mask=present, other=0.0)
        total += pointwise_19
    total = sum_along(total, 1)
    tl.store(reduce_20_kernel_hub_sum_0_ptr + tile * 4 + f0, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_reduce_20_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_dst_rel_ptr,
    reduce_20_ptr,
    reduce_20_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_edge_by_dst_rel_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_edge_by_dst_rel_ptr + 4 * n_tiles + tile, mask=valid, other=0)
    is_first = tile == first_tile
    stored = valid & is_first
    after = tl.where(stored, end_tile, first_tile)
    tiles = longest_of(first_tile, after, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 4), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None]
        counted = part < after
        total += tl.load(reduce_20_kernel_hub_sum_0_ptr + part.to(tl.int64) * 4 + f0, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_edge_by_dst_rel_ptr + tile, mask=valid, other=0).to(tl.int64)
    tl.store(reduce_20_ptr + owner * 4 + f0, total, mask=stored)


# traversal permute_21_kernel(owner=rel, via=none) {
#   %0: rel[64,4] f32 = load(buffer=@saved_feature_reduce_2, via=none, at=rel)
#   %1: rel[4,64] f32 = permute(%0, order=[1, 0])
#   store @permute_21 = %1
# }
@triton.jit(do_not_specialize=["n_rel"])
def RGATConv_backward_permute_21_kernel(
    n_rel,
    permute_21_ptr,
    saved_feature_reduce_2_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: copies. Stores permute_21."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    f0 = tl.arange(0, 4)[None, :, None]
    f1 = tl.arange(0, 64)[None, None, :]
    valid = row < n_rel
    saved_feature_reduce_2 = tl.load(saved_feature_reduce_2_ptr + row * 256 + (f1 * 4 + f0), mask=valid, other=0.0)
    tl.store(permute_21_ptr + row * 256 + (f0 * 64 + f1), saved_feature_reduce_2, mask=valid)


# traversal grad_x_kernel(owner=node, via=dst:dst_rel->node) {
#   %0: dst_rel[4] f32 = load(buffer=@reduce_20, via=none, at=dst_rel)
#   %1: dst_rel[1] f32 = slice(%0, axis=0, start=0, stop=1, step=1)
#   %2: dst_rel[4,64] f32 = load(buffer=@permute_21, via=rel:dst_rel->rel, at=dst_rel)
#   %3: dst_rel[1,64] f32 = slice(%2, axis=0, start=0, stop=1, step=1)
#   %4: dst_rel[64] f32 = reshape(%3, to=[64])
#   %5: dst_rel[64] f32 = pointwise(%1, %4, function=mul, scalars=[])
#   %6: dst_rel[1] f32 = slice(%0, axis=0, start=1, stop=2, step=1)
#   %7: dst_rel[1,64] f32 = slice(%2, axis=0, start=1, stop=2, step=1)
#   %8: dst_rel[64] f32 = reshape(%7, to=[64])
#   %9: dst_rel[64] f32 = pointwise(%6, %8, function=mul, scalars=[])
#   %10: dst_rel[64] f32 = pointwise(%5, %9, function=add, scalars=[])
#   %11: dst_rel[1] f32 = slice(%0, axis=0, start=2, stop=3, step=1)
#   %12: dst_rel[1,64] f32 = slice(%2, axis=0, start=2, stop=3, step=1)
#   %13: dst_rel[64] f32 = reshape(%12, to=[64])
#   %14: dst_rel[64] f32 = pointwise(%11, %13, function=mul, scalars=[])
#   %15: dst_rel[64] f32 = pointwise(%10, %14, function=add, scalars=[])
#   %16: dst_rel[1] f32 = slice(%0, axis=0, start=3, stop=4, step=1)
#   %17: dst_rel[1,64] f32 = slice(%2, axis=0, start=3, stop=4, step=1)
#   %18: dst_rel[64] f32 = reshape(%17, to=[64])
#   %19: dst_rel[64] f32 = pointwise(%16, %18, function=mul, scalars=[])
#   %20: dst_rel[64] f32 = pointwise(%15, %19, function=add, scalars=[])
#   %21: node[64] f32 = reduce(%20, via=dst:dst_rel->node, op=sum)
#   %22: node[64] f32 = load(buffer=@reduce_27, via=none, at=node)
#   %23: node[64] f32 = pointwise(%21, %22, function=add, scalars=[])
#   store @grad_x = %23
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def RGATConv_backward_grad_x_kernel(
    n_node,
    segments_dst_rel_by_dst_ptr,
    most_members,
    grad_x_ptr,
    order_dst_rel_by_dst_ptr,
    reduce_20_ptr,
    rel_of_dst_rel_by_dst_ptr,
    permute_21_ptr,
    reduce_27_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of dst_rel (dst:dst_rel->node): sum, mul, add. Stores grad_x."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = owner < n_node
    begin = tl.load(segments_dst_rel_by_dst_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_dst_rel_by_dst_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of dst_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end_2
        number = tl.load(order_dst_rel_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        reduce_20_row = reduce_20_ptr + number * 4
        reduce_20 = tl.load(reduce_20_row + 0, mask=present, other=0.0)
        rel = tl.load(rel_of_dst_rel_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        permute_21_row = permute_21_ptr + rel * 256
        permute_21_rel = tl.load(permute_21_row + (0 * 64 + f0), mask=present, other=0.0)
        reduce_20_2 = tl.load(reduce_20_row + 1, mask=present, other=0.0)
        permute_21_rel_2 = tl.load(permute_21_row + (1 * 64 + f0), mask=present, other=0.0)
        reduce_20_3 = tl.load(reduce_20_row + 2, mask=present, other=0.0)
        permute_21_rel_3 = tl.load(permute_21_row + (2 * 64 + f0), mask=present, other=0.0)
        reduce_20_4 = tl.load(reduce_20_row + 3, mask=present, other=0.0)
        permute_21_rel_4 = tl.load(permute_21_row + (3 * 64 + f0), mask=present, other=0.0)
        add = (((reduce_20 * permute_21_rel) + (reduce_20_2 * permute_21_rel_2)) + (reduce_20_3 * permute_21_rel_3)) + (reduce_20_4 * permute_21_rel_4)
        total += tl.where(present, add, 0)
    total = sum_along(total, 1)
    reduce_27 = tl.load(reduce_27_ptr + owner * 64 + f0, mask=valid, other=0.0)
    stored = valid & is_short
    tl.store(grad_x_ptr + owner * 64 + f0, total + reduce_27, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_grad_x_kernel_of_hubs_1(
    n_tiles,
    hubs_dst_rel_by_dst_ptr,
    order_dst_rel_by_dst_ptr,
    reduce_20_ptr,
    rel_of_dst_rel_by_dst_ptr,
    permute_21_ptr,
    grad_x_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_dst_rel_by_dst_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_dst_rel_by_dst_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of dst_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        number = tl.load(order_dst_rel_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        reduce_20_row = reduce_20_ptr + number * 4
        reduce_20 = tl.load(reduce_20_row + 0, mask=present, other=0.0)
        rel = tl.load(rel_of_dst_rel_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        permute_21_row = permute_21_ptr + rel * 256
        permute_21_rel = tl.load(permute_21_row + (0 * 64 + f0), mask=present, other=0.0)
        reduce_20_2 = tl.load(reduce_20_row + 1, mask=present, other=0.0)
        permute_21_rel_2 = tl.load(permute_21_row + (1 * 64 + f0), mask=present, other=0.0)
        reduce_20_3 = tl.load(reduce_20_row + 2, mask=present, other=0.0)
        permute_21_rel_3 = tl.load(permute_21_row + (2 * 64 + f0), mask=present, other=0.0)
        reduce_20_4 = tl.load(reduce_20_row + 3, mask=present, other=0.0)
        permute_21_rel_4 = tl.load(permute_21_row + (3 * 64 + f0), mask=present, other=0.0)
        add = (((reduce_20 * permute_21_rel) + (reduce_20_2 * permute_21_rel_2)) + (reduce_20_3 * permute_21_rel_3)) + (reduce_20_4 * permute_21_rel_4)
        total += tl.where(present, add, 0)
    total = sum_along(total, 1)
    tl.store(grad_x_kernel_hub_sum_0_ptr + tile * 64 + f0, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_grad_x_kernel_of_hubs(
    n_tiles,
    hubs_dst_rel_by_dst_ptr,
    grad_x_ptr,
    reduce_27_ptr,
    grad_x_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_dst_rel_by_dst_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_dst_rel_by_dst_ptr + 4 * n_tiles + tile, mask=valid, other=0)
    is_first = tile == first_tile
    stored = valid & is_first
    after = tl.where(stored, end_tile, first_tile)
    tiles = longest_of(first_tile, after, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None]
        counted = part < after
        total += tl.load(grad_x_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_dst_rel_by_dst_ptr + tile, mask=valid, other=0).to(tl.int64)
    reduce_27 = tl.load(reduce_27_ptr + owner * 64 + f0, mask=valid, other=0.0)
    tl.store(grad_x_ptr + owner * 64 + f0, total + reduce_27, mask=stored)


# gemm_reduce outer_reduce_28_kernel(via=rel:dst_rel->rel, shared=true, schedule={tile_rows=1024}) {
#   %0: dst_rel[64] f32 = load(buffer=@x, via=dst:dst_rel->node, at=dst_rel)
#   %1: dst_rel[4] f32 = load(buffer=@reduce_20, via=none, at=dst_rel)
#   left %0
#   right %1
#   store @outer_reduce_28
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_outer_reduce_28_kernel(
    tiles_dst_rel_by_rel_32_to_1024_ptr,
    n_tiles,
    dst_of_dst_rel_ptr,
    x_ptr,
    reduce_20_ptr,
    outer_reduce_28_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of dst_rel of each rel of x by reduce_20, for every tile on its own. Stores
    outer_reduce_28.
    """
    tile = tl.program_id(0)
    begin = tl.load(tiles_dst_rel_by_rel_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_dst_rel_by_rel_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        valid = position < end
        dst = tl.load(dst_of_dst_rel_ptr + position, mask=valid, other=0).to(tl.int64)
        x_dst = tl.load(x_ptr + dst * 64 + k, mask=valid, other=0.0)
        number = position.to(tl.int64)
        reduce_20 = tl.load(reduce_20_ptr + number * 4 + n, mask=valid & (n < 4), other=0.0)
        left = tl.trans(tl.reshape(x_dst, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_20, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = outer_reduce_28_parts_ptr + tile.to(tl.int64) * 256
    tl.store(part + to_k * 4 + to_n, total, mask=(to_k < 64) & (to_n < 4))


@triton.jit(do_not_specialize=[])
def RGATConv_backward_outer_reduce_28_kernel_of_parts(
    outer_reduce_28_parts_ptr,
    outer_reduce_28_ptr,
    starts_of_tiles_dst_rel_by_rel_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of outer_reduce_28_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_dst_rel_by_rel_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_dst_rel_by_rel_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 256)
        part = tl.load(outer_reduce_28_parts_ptr + at.to(tl.int64) * 256 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(outer_reduce_28_ptr + owner.to(tl.int64) * 256 + lane, result, mask=lane < 256)


# traversal grad_att_dst_kernel(owner=rel, via=none) {
#   %0: rel[64,4] f32 = load(buffer=@outer_reduce_28, via=none, at=rel)
#   %1: rel[64,4,1] f32 = reshape(%0, to=[64, 4, 1])
#   %2: rel[4,16] f32 = load(buffer=@att_dst, via=none, at=rel)
#   %3: rel[64,4,16] f32 = pointwise(%1, %2, function=mul, scalars=[])
#   %4: rel[64,64] f32 = load(buffer=@outer_reduce_29, via=none, at=rel)
#   %5: rel[64,4,16] f32 = reshape(%4, to=[64, 4, 16])
#   %6: rel[64,4,16] f32 = pointwise(%3, %5, function=add, scalars=[])
#   %7: rel[64,4,16] f32 = load(buffer=@weight, via=none, at=rel)
#   %8: rel[64,4,16] f32 = pointwise(%1, %7, function=mul, scalars=[])
#   %9: rel[4,16] f32 = feature_reduce(%8, op=sum, axes=[0])
#   store @grad_weight = %6
#   store @grad_att_dst = %9
# }
@triton.jit(do_not_specialize=["n_rel"])
def RGATConv_backward_grad_att_dst_kernel(
    n_rel,
    grad_weight_ptr,
    outer_reduce_28_ptr,
    att_dst_ptr,
    outer_reduce_29_ptr,
    grad_att_dst_ptr,
    weight_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul, add, sum over features. Stores grad_weight, grad_att_dst."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = tl.arange(0, 64)[None, :, None, None]
    f1 = tl.arange(0, 4)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 64 + f1 * 16 + f2
    outer_reduce_28_row = outer_reduce_28_ptr + row * 256
    valid = row < n_rel
    outer_reduce_28 = tl.load(outer_reduce_28_row + (f0 * 4 + f1), mask=valid, other=0.0)
    att_dst = tl.load(att_dst_ptr + row * 64 + (f1 * 16 + f2), mask=valid, other=0.0)
    outer_reduce_29 = tl.load(outer_reduce_29_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(grad_weight_ptr + row * 4096 + at, (outer_reduce_28 * att_dst) + outer_reduce_29, mask=valid)
    f0_2 = tl.arange(0, 4)[None, :, None, None]
    f1_2 = tl.arange(0, 16)[None, None, :, None]
    f2_2 = tl.arange(0, 64)[None, None, None, :]
    outer_reduce_28_2 = tl.load(outer_reduce_28_row + (f2_2 * 4 + f0_2), mask=valid, other=0.0)
    weight = tl.load(weight_ptr + row * 4096 + (f2_2 * 64 + f0_2 * 16 + f1_2), mask=valid, other=0.0)
    tl.store(grad_att_dst_ptr + row * 64 + (f0_2 * 16 + f1_2), sum_along(outer_reduce_28_2 * weight, 3), mask=valid)


# traversal grad_att_src_kernel(owner=rel, via=rel:src_rel->rel, schedule={split=4096}) {
#   %0: src_rel[4] f32 = load(buffer=@reduce_24, via=none, at=src_rel)
#   %1: src_rel[4,1] f32 = reshape(%0, to=[4, 1])
#   %2: src_rel[64] f32 = load(buffer=@saved_linear_0, via=none, at=src_rel)
#   %3: src_rel[4,16] f32 = reshape(%2, to=[4, 16])
#   %4: src_rel[4,16] f32 = pointwise(%1, %3, function=mul, scalars=[])
#   %5: rel[4,16] f32 = reduce(%4, via=rel:src_rel->rel, op=sum)
#   store @grad_att_src = %5
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_backward_grad_att_src_kernel(
    n_tiles,
    tiles_src_rel_by_rel_32_to_4096_ptr,
    grad_att_src_parts_ptr,
    reduce_24_ptr,
    saved_linear_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of rel, over its rows of src_rel (rel:src_rel->rel): sum, mul. Stores grad_att_src."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = tile < n_tiles
    begin = tl.load(tiles_src_rel_by_rel_32_to_4096_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(tiles_src_rel_by_rel_32_to_4096_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of src_rel, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        number = position.to(tl.int64)
        reduce_24 = tl.load(reduce_24_ptr + number * 4 + f0, mask=present, other=0.0)
        saved_linear_0 = tl.load(saved_linear_0_ptr + number * 64 + at, mask=present, other=0.0)
        total += tl.where(present, reduce_24 * saved_linear_0, 0)
    total = sum_along(total, 1)
    tl.store(grad_att_src_parts_ptr + tile * 64 + at, total, mask=valid)


@triton.jit(do_not_specialize=[])
def RGATConv_backward_grad_att_src_kernel_grad_att_src_of_parts(
    grad_att_src_parts_ptr,
    grad_att_src_ptr,
    starts_of_tiles_src_rel_by_rel_32_to_4096_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_att_src_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_src_rel_by_rel_32_to_4096_ptr + owner)
    last = tl.load(starts_of_tiles_src_rel_by_rel_32_to_4096_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 64)
        part = tl.load(grad_att_src_parts_ptr + at.to(tl.int64) * 64 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_att_src_ptr + owner.to(tl.int64) * 64 + lane, result, mask=lane < 64)
