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

# traversal saved_2_kernel(owner=rel, via=none) {
#   %0: rel[64,4,16] f32 = load(buffer=@weight, via=none, at=rel)
#   %1: rel[64,64] f32 = reshape(%0, to=[64, 64])
#   %2: rel[4,16] f32 = load(buffer=@att_dst, via=none, at=rel)
#   %3: rel[64,4,16] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   %4: rel[64,4] f32 = feature_reduce(%3, op=sum, axes=[2])
#   store @reshape_12 = %1
#   store @saved_2 = %4
# }
@triton.jit(do_not_specialize=["n_rel"])
def RGATConv_saved_2_kernel(
    n_rel,
    reshape_12_ptr,
    weight_ptr,
    saved_2_ptr,
    att_dst_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul, sum over features. Stores reshape_12, saved_2."""
    piece = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = piece * 32 + tl.arange(0, 32)[None, :, None, None]
    f1 = tl.arange(0, 4)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 64 + f1 * 16 + f2
    valid = row < n_rel
    weight = tl.load(weight_ptr + row * 4096 + at, mask=valid, other=0.0)
    tl.store(reshape_12_ptr + row * 4096 + at, weight, mask=valid)
    att_dst = tl.load(att_dst_ptr + row * 64 + (f1 * 16 + f2), mask=valid, other=0.0)
    tl.store(saved_2_ptr + row * 256 + (f0 * 4 + f1), sum_along(weight * att_dst, 3), mask=valid)


# gemm saved_0_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = product(%0, w=@reshape_12, via=rel:src_rel->rel, transpose=false)
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
    reshape_12_ptr,
    saved_1_ptr,
    att_src_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: x times reshape_12 of the row's rel; mul, sum over features. Stores saved_0, saved_1."""
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
        reshape_12 = tl.load(reshape_12_ptr + rel * 4096 + (k_2 * 64 + f0 * 16 + f1))
        left = tl.reshape(x_src, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(reshape_12, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 4, 16))
    number = position.to(tl.int64)
    at = f0 * 16 + f1
    tl.store(saved_0_ptr + number * 64 + at, product, mask=valid)
    att_src_rel = tl.load(att_src_ptr + rel * 64 + at)
    tl.store(saved_1_ptr + number * 4 + f0, sum_along(product * att_src_rel, 2), mask=valid)


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
#   %4: node[4] f32 = reduce(%3, via=dst:edge->node, op=logsumexp)
#   %5: edge[4] f32 = lift(%4, via=dst:edge->node)
#   %6: edge[4] f32 = pointwise(%3, %5, function=sub, scalars=[])
#   %7: edge[4] f32 = pointwise(%6, function=exp, scalars=[])
#   %8: edge[4,1] f32 = reshape(%7, to=[4, 1])
#   %9: edge[64] f32 = load(buffer=@saved_0, via=src_rel:edge->src_rel, at=edge)
#   %10: edge[4,16] f32 = reshape(%9, to=[4, 16])
#   %11: edge[4,16] f32 = pointwise(%8, %10, function=mul, scalars=[])
#   %12: node[4,16] f32 = reduce(%11, via=dst:edge->node, op=sum)
#   %13: node[64] f32 = reshape(%12, to=[64])
#   %14: node[64] f32 = load(buffer=@bias, via=one:node->one, at=node)
#   %15: node[64] f32 = pointwise(%13, %14, function=add, scalars=[])
#   store @saved_4 = %4
#   store @saved_5 = %12
#   store @out = %15
# }
@triton.jit(do_not_specialize=["n_node"])
def RGATConv_out_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    saved_4_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_1_ptr,
    dst_rel_of_edge_by_dst_ptr,
    saved_3_ptr,
    saved_5_ptr,
    saved_0_ptr,
    out_ptr,
    bias_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): logsumexp, sum, add, leaky_relu, sub, exp, mul.
    Stores saved_4, saved_5, out.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None, None]
    valid = owner < n_node
    begin = tl.load(segments_edge_by_dst_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_ptr + owner + 1, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 4)[None, None, :, None]
    f1 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 16 + f1
    logsumexp = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    exponentials = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: the log-sum-exp of an online softmax, their sum, weighted by that softmax.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_1_src_rel = tl.load(saved_1_ptr + src_rel * 4 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_3_dst_rel = tl.load(saved_3_ptr + dst_rel * 4 + f0, mask=present, other=0.0)
        leaky_relu = tl.where((saved_1_src_rel + saved_3_dst_rel) > 0, saved_1_src_rel + saved_3_dst_rel, (saved_1_src_rel + saved_3_dst_rel) * 0.2)
        counted = tl.where(present, leaky_relu, -float('inf'))
        top = tl.maximum(logsumexp, counted, propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(top == -float('inf'), 0, top)
        scale = tl.exp(logsumexp - base)
        weight = tl.exp(counted - base)
        exponentials = exponentials * scale + weight
        logsumexp = top
        saved_0_src_rel = tl.load(saved_0_ptr + src_rel * 64 + at, mask=present, other=0.0)
        # What is summed so far shrinks where there is a new largest logit.
        total = total * scale + weight * saved_0_src_rel
    top_2 = max_along(logsumexp, 1)
    base_2 = tl.where(top_2 == -float('inf'), 0, top_2)
    rescale = tl.exp(logsumexp - base_2)
    exponentials = sum_along(exponentials * rescale, 1)
    logsumexp = tl.where(end > begin, base_2 + tl.log(exponentials), 0)
    total = tl.where(end > begin, sum_along(total * rescale, 1) / exponentials, 0)
    tl.store(saved_4_ptr + owner * 4 + f0, logsumexp, mask=valid)
    tl.store(saved_5_ptr + owner * 64 + at, total, mask=valid)
    bias = tl.load(bias_ptr + at)
    tl.store(out_ptr + owner * 64 + at, total + bias, mask=valid)
