# Columba: RGATConv
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

# gemm saved_0_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = product(%0, w=@weight, via=rel:src_rel->rel, transpose=false, matrix=[64, 64])
#   %2: src_rel[4,16] f32 = reshape(%1, to=[4, 16])
#   %3: src_rel[4,16] f32 = load(buffer=@att_src, via=rel:src_rel->rel, at=src_rel)
#   %4: src_rel[4,16] f32 = pointwise(%2, %3, function=mul, scalars=[])
#   %5: src_rel[4] f32 = feature_reduce(%4, op=sum, axes=[1])
#   store @saved_0 = %1
#   store @saved_1 = %5
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_saved_0_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    saved_0_ptr,
    src_of_src_rel_ptr,
    x_ptr,
    weight_ptr,
    saved_1_ptr,
    att_src_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: x times weight of the row's rel; mul, sum over features. Stores saved_0, saved_1."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 4)[None, :, None]
    f1 = tl.arange(0, 16)[None, None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :, None]
        x_src = tl.load(x_ptr + src * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None, None]
        weight = tl.load(weight_ptr + rel * 4096 + (k_2 * 64 + f0 * 16 + f1))
        left = tl.reshape(x_src, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 4, 16))
    number = position.to(tl.int64)
    at = f0 * 16 + f1
    tl.store(saved_0_ptr + number * 64 + at, product, mask=valid)
    att_src_rel = tl.load(att_src_ptr + rel * 64 + at)
    tl.store(saved_1_ptr + number * 4 + f0, sum_along(product * att_src_rel, 2), mask=valid)


# traversal saved_2_kernel(owner=rel, via=none) {
#   %0: rel[64,4,16] f32 = load(buffer=@weight, via=none, at=rel)
#   %1: rel[4,16] f32 = load(buffer=@att_dst, via=none, at=rel)
#   %2: rel[64,4,16] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: rel[64,4] f32 = feature_reduce(%2, op=sum, axes=[2])
#   store @saved_2 = %3
# }
@triton.jit(do_not_specialize=["n_rel"])
def RGATConv_saved_2_kernel(
    n_rel,
    saved_2_ptr,
    weight_ptr,
    att_dst_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul, sum over features. Stores saved_2."""
    piece = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = piece * 32 + tl.arange(0, 32)[None, :, None, None]
    f1 = tl.arange(0, 4)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    valid = row < n_rel
    weight = tl.load(weight_ptr + row * 4096 + (f0 * 64 + f1 * 16 + f2), mask=valid, other=0.0)
    att_dst = tl.load(att_dst_ptr + row * 64 + (f1 * 16 + f2), mask=valid, other=0.0)
    tl.store(saved_2_ptr + row * 256 + (f0 * 4 + f1), sum_along(weight * att_dst, 3), mask=valid)


# gemm saved_3_kernel(schedule={tile_rows=32}) {
#   %0: dst_rel[64] f32 = load(buffer=@x, via=dst:dst_rel->node, at=dst_rel)
#   %1: dst_rel[4] f32 = product(%0, w=@saved_2, via=rel:dst_rel->rel, transpose=false)
#   store @saved_3 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_saved_3_kernel(
    tiles_dst_rel_by_rel_32_ptr,
    n_tiles,
    saved_3_ptr,
    dst_of_dst_rel_ptr,
    x_ptr,
    saved_2_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of dst_rel: x times saved_2 of the row's rel. Stores saved_3."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_dst_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None]
    end = tl.load(tiles_dst_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    dst = tl.load(dst_of_dst_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    rel = tl.load(tiles_dst_rel_by_rel_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 4)[None, :]
    total = tl.full((ROWS, 4), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        x_dst = tl.load(x_ptr + dst * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        saved_2 = tl.load(saved_2_ptr + rel * 256 + (k_2 * 4 + f0))
        left = tl.reshape(x_dst, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(saved_2, (DEPTH, 4)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 4))
    number = position.to(tl.int64)
    tl.store(saved_3_ptr + number * 4 + f0, product, mask=valid)


# traversal out_kernel(owner=node, via=dst:edge->node) {
#   %0: edge[4] f32 = load(buffer=@saved_1, via=src_rel:edge->src_rel, at=edge)
#   %1: edge[4] f32 = load(buffer=@saved_3, via=dst_rel:edge->dst_rel, at=edge)
#   %2: edge[4] f32 = pointwise(%0, %1, function=add, scalars=[])
#   %3: edge[4] f32 = pointwise(%2, function=leaky_relu, scalars=[0.2])
#   %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=max)
#   %5: edge[4] f32 = lift(%4, via=dst:edge->node)
#   %6: edge[4] f32 = pointwise(%3, %5, function=sub, scalars=[])
#   %7: edge[4] f32 = pointwise(%6, function=exp, scalars=[])
#   %8: node[4] f32 = reduce(%7, via=dst:edge->node, op=sum)
#   %9: node[] f32 = constant(at=node, value=0.0, to=f32)
#   %10: node[4] bool = pointwise(%8, %9, function=le, scalars=[])
#   %11: node[] f32 = constant(at=node, value=1.0, to=f32)
#   %12: node[4] f32 = pointwise(%10, %11, %8, function=where, scalars=[])
#   %13: node[4] f32 = pointwise(%12, function=reciprocal, scalars=[])
#   %14: edge[4,1] f32 = reshape(%7, to=[4, 1])
#   %15: edge[64] f32 = load(buffer=@saved_0, via=src_rel:edge->src_rel, at=edge)
#   %16: edge[4,16] f32 = reshape(%15, to=[4, 16])
#   %17: edge[4,16] f32 = pointwise(%14, %16, function=mul, scalars=[])
#   %18: node[4,16] f32 = reduce(%17, via=dst:edge->node, op=sum)
#   %19: node[4,1] f32 = reshape(%13, to=[4, 1])
#   %20: node[4,16] f32 = pointwise(%18, %19, function=mul, scalars=[])
#   %21: node[64] f32 = reshape(%20, to=[64])
#   %22: node[64] f32 = load(buffer=@bias, via=one:node->one, at=node)
#   %23: node[64] f32 = pointwise(%21, %22, function=add, scalars=[])
#   store @saved_4 = %4
#   store @saved_5 = %13
#   store @saved_6 = %20
#   store @out = %23
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def RGATConv_out_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    most_members,
    saved_4_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_1_ptr,
    dst_rel_of_edge_by_dst_ptr,
    saved_3_ptr,
    saved_5_ptr,
    saved_6_ptr,
    saved_0_ptr,
    out_ptr,
    bias_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): max, sum, add, leaky_relu, sub, exp, le, where,
    reciprocal, mul. Stores saved_4, saved_5, saved_6, out.
    """
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
    largest = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their max, the sum of an online softmax's exponentials, the sum of products with an online softmax's exponentials.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end_2
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_1_src_rel = tl.load(saved_1_ptr + src_rel * 4 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_3_dst_rel = tl.load(saved_3_ptr + dst_rel * 4 + f0, mask=present, other=0.0)
        leaky_relu = tl.where((saved_1_src_rel + saved_3_dst_rel) > 0, saved_1_src_rel + saved_3_dst_rel, (saved_1_src_rel + saved_3_dst_rel) * 0.2)
        counted = tl.where(present, leaky_relu, -float('inf'))
        top = tl.maximum(largest, counted, propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(top == -float('inf'), 0, top)
        scale = tl.exp(largest - base)
        weight = tl.exp(counted - base)
        largest = top
        # What is summed so far shrinks where there is a new largest logit.
        total = total * scale + weight
        saved_0_src_rel = tl.load(saved_0_ptr + src_rel * 64 + at, mask=present, other=0.0)
        # What is summed so far shrinks where there is a new largest logit.
        total_2 = total_2 * scale + weight * saved_0_src_rel
    top_2 = tl.where(end_2 > begin, max_along(largest, 1), 0)
    rescale = tl.exp(largest - top_2)
    largest = top_2
    total = sum_along(total * rescale, 1)
    total_2 = sum_along(total_2 * rescale, 1)
    stored = valid & is_short
    tl.store(saved_4_ptr + owner * 4 + f0, largest, mask=stored)
    constant = tl.full((1, 1, 1, 1), 1.0, tl.float32)
    reciprocal = 1 / tl.where(total <= 0.0, constant, total)
    tl.store(saved_5_ptr + owner * 4 + f0, reciprocal, mask=stored)
    mul = total_2 * reciprocal
    tl.store(saved_6_ptr + owner * 64 + at, mul, mask=stored)
    bias = tl.load(bias_ptr + at)
    tl.store(out_ptr + owner * 64 + at, mul + bias, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_out_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_dst_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_1_ptr,
    dst_rel_of_edge_by_dst_ptr,
    saved_3_ptr,
    saved_0_ptr,
    out_kernel_hub_max_0_ptr,
    out_kernel_hub_sum_1_ptr,
    out_kernel_hub_sum_2_ptr,
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
    largest = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their max, the sum of an online softmax's exponentials, the sum of products with an online softmax's exponentials.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_1_src_rel = tl.load(saved_1_ptr + src_rel * 4 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_3_dst_rel = tl.load(saved_3_ptr + dst_rel * 4 + f0, mask=present, other=0.0)
        leaky_relu = tl.where((saved_1_src_rel + saved_3_dst_rel) > 0, saved_1_src_rel + saved_3_dst_rel, (saved_1_src_rel + saved_3_dst_rel) * 0.2)
        counted = tl.where(present, leaky_relu, -float('inf'))
        top = tl.maximum(largest, counted, propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(top == -float('inf'), 0, top)
        scale = tl.exp(largest - base)
        weight = tl.exp(counted - base)
        largest = top
        # What is summed so far shrinks where there is a new largest logit.
        total = total * scale + weight
        saved_0_src_rel = tl.load(saved_0_ptr + src_rel * 64 + at, mask=present, other=0.0)
        # What is summed so far shrinks where there is a new largest logit.
        total_2 = total_2 * scale + weight * saved_0_src_rel
    top_2 = max_along(largest, 1)
    rescale = tl.exp(largest - tl.where(top_2 == -float('inf'), 0, top_2))
    largest = top_2
    tl.store(out_kernel_hub_max_0_ptr + tile * 4 + f0, largest, mask=valid)
    total = sum_along(total * rescale, 1)
    tl.store(out_kernel_hub_sum_1_ptr + tile * 4 + f0, total, mask=valid)
    total_2 = sum_along(total_2 * rescale, 1)
    tl.store(out_kernel_hub_sum_2_ptr + tile * 64 + f0 * 16 + f1, total_2, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGATConv_out_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_dst_ptr,
    saved_4_ptr,
    saved_5_ptr,
    saved_6_ptr,
    out_ptr,
    bias_ptr,
    out_kernel_hub_max_0_ptr,
    out_kernel_hub_sum_1_ptr,
    out_kernel_hub_sum_2_ptr,
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
    largest = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    f1 = tl.arange(0, 16)[None, None, None, :]
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the tiles of the hub, MEMBERS at a time: what they have found.
    for start in range(0, tiles, MEMBERS):
        part = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted = part < after
        largest = tl.maximum(largest, tl.load(out_kernel_hub_max_0_ptr + part.to(tl.int64) * 4 + f0, mask=counted, other=-float('inf')), propagate_nan=tl.PropagateNan.ALL)
    largest = max_along(largest, 1)
    # Over the tiles of the hub, MEMBERS at a time: sums, relative to each one's maximum.
    for start in range(0, tiles, MEMBERS):
        part_2 = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted_2 = part_2 < after
        weight = tl.exp(tl.load(out_kernel_hub_max_0_ptr + part_2.to(tl.int64) * 4 + f0, mask=counted_2, other=-float('inf')) - largest)
        total += tl.load(out_kernel_hub_sum_1_ptr + part_2.to(tl.int64) * 4 + f0, mask=counted_2, other=0) * weight
        total_2 += tl.load(out_kernel_hub_sum_2_ptr + part_2.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted_2, other=0) * weight
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    owner = tl.load(hubs_edge_by_dst_ptr + tile, mask=valid, other=0).to(tl.int64)
    tl.store(saved_4_ptr + owner * 4 + f0, largest, mask=stored)
    constant = tl.full((1, 1, 1, 1), 1.0, tl.float32)
    reciprocal = 1 / tl.where(total <= 0.0, constant, total)
    tl.store(saved_5_ptr + owner * 4 + f0, reciprocal, mask=stored)
    at = f0 * 16 + f1
    mul = total_2 * reciprocal
    tl.store(saved_6_ptr + owner * 64 + at, mul, mask=stored)
    bias = tl.load(bias_ptr + at)
    tl.store(out_ptr + owner * 64 + at, mul + bias, mask=stored)
