# Columba: RGCNConv
import triton
import triton.language as tl

@triton.jit
def sum_along(x, DIM: tl.constexpr):
    return tl.reduce(x, DIM, tl.standard._sum_combine, keep_dims=True)


@triton.jit
def longest_of(begin, end, OWNERS: tl.constexpr):
    # The most members that an owner of this block has.
    return tl.reduce(tl.reshape(end - begin, (OWNERS,)), 0, tl.standard._elementwise_max)

# gemm linear_5_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = product(%0, w=@weight, via=rel:src_rel->rel, transpose=false)
#   store @linear_5 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_linear_5_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_5_ptr,
    src_of_src_rel_ptr,
    x_ptr,
    weight_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: x times weight of the row's rel. Stores linear_5."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    f0 = tl.arange(0, 64)[None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        x_src = tl.load(x_ptr + src * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        weight = tl.load(weight_ptr + rel * 4096 + (k_2 * 64 + f0))
        left = tl.reshape(x_src, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    number = position.to(tl.int64)
    tl.store(linear_5_ptr + number * 64 + f0, product, mask=valid)


# traversal pointwise_7_kernel(owner=dst_rel, via=dst_rel:edge->dst_rel) {
#   %0: dst_rel[] f32 = degree(via=dst_rel:edge->dst_rel, to=f32)
#   %1: dst_rel[] f32 = constant(at=dst_rel, value=1.0, to=f32)
#   %2: dst_rel[] f32 = pointwise(%0, %1, function=maximum, scalars=[])
#   %3: dst_rel[] f32 = pointwise(%2, function=reciprocal, scalars=[])
#   store @pointwise_7 = %3
# }
@triton.jit(do_not_specialize=["n_dst_rel"])
def RGCNConv_pointwise_7_kernel(
    n_dst_rel,
    segments_edge_by_dst_rel_ptr,
    pointwise_7_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of dst_rel, over its rows of edge (dst_rel:edge->dst_rel): maximum, reciprocal. Stores
    pointwise_7.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None]
    valid = owner < n_dst_rel
    begin = tl.load(segments_edge_by_dst_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_rel_ptr + owner + 1, mask=valid, other=0)
    degree = (end - begin).to(tl.float32)
    constant = tl.full((1, 1), 1.0, tl.float32)
    tl.store(pointwise_7_ptr + owner, 1 / tl.maximum(degree, constant, propagate_nan=tl.PropagateNan.ALL), mask=valid)


# gemm linear_9_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@root, via=one:node->one, transpose=false)
#   store @linear_9 = %1
# }
@triton.jit(do_not_specialize=["n_node"])
def RGCNConv_linear_9_kernel(
    n_node,
    linear_9_ptr,
    x_ptr,
    root_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: x times root. Stores linear_9."""
    tile = tl.program_id(0)
    begin = tile * 32
    position = begin + tl.arange(0, ROWS)[:, None]
    number = position.to(tl.int64)
    end = tl.minimum(begin + 32, n_node)
    valid = position < end
    f0 = tl.arange(0, 64)[None, :]
    total = tl.full((ROWS, 64), 0, tl.float32)
    # The product, DEPTH of its 64 columns and rows at a time.
    for depth in range(0, 64, DEPTH):
        k = depth + tl.arange(0, DEPTH)[None, :]
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        root = tl.load(root_ptr + (k_2 * 64 + f0))
        left = tl.reshape(x, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(root, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_9_ptr + number * 64 + f0, product, mask=valid)


# traversal out_kernel(owner=node, via=dst:edge->node) {
#   %0: edge[64] f32 = load(buffer=@linear_5, via=src_rel:edge->src_rel, at=edge)
#   %1: edge[] f32 = load(buffer=@pointwise_7, via=dst_rel:edge->dst_rel, at=edge)
#   %2: edge[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: node[64] f32 = reduce(%2, via=dst:edge->node, op=sum)
#   %4: node[64] f32 = load(buffer=@linear_9, via=none, at=node)
#   %5: node[64] f32 = pointwise(%3, %4, function=add, scalars=[])
#   %6: node[64] f32 = load(buffer=@bias, via=one:node->one, at=node)
#   %7: node[64] f32 = pointwise(%5, %6, function=add, scalars=[])
#   store @out = %7
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def RGCNConv_out_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    most_members,
    out_ptr,
    src_rel_of_edge_by_dst_ptr,
    linear_5_ptr,
    dst_rel_of_edge_by_dst_ptr,
    pointwise_7_ptr,
    linear_9_ptr,
    bias_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): sum, mul, add. Stores out."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = owner < n_node
    begin = tl.load(segments_edge_by_dst_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end_2
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        linear_5_src_rel = tl.load(linear_5_ptr + src_rel * 64 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_7_dst_rel = tl.load(pointwise_7_ptr + dst_rel, mask=present, other=0.0)
        total += tl.where(present, linear_5_src_rel * pointwise_7_dst_rel, 0)
    total = sum_along(total, 1)
    linear_9 = tl.load(linear_9_ptr + owner * 64 + f0, mask=valid, other=0.0)
    bias = tl.load(bias_ptr + f0)
    stored = valid & is_short
    tl.store(out_ptr + owner * 64 + f0, (total + linear_9) + bias, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_out_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_dst_ptr,
    src_rel_of_edge_by_dst_ptr,
    linear_5_ptr,
    dst_rel_of_edge_by_dst_ptr,
    pointwise_7_ptr,
    out_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_edge_by_dst_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_edge_by_dst_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        linear_5_src_rel = tl.load(linear_5_ptr + src_rel * 64 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_7_dst_rel = tl.load(pointwise_7_ptr + dst_rel, mask=present, other=0.0)
        total += tl.where(present, linear_5_src_rel * pointwise_7_dst_rel, 0)
    total = sum_along(total, 1)
    tl.store(out_kernel_hub_sum_0_ptr + tile * 64 + f0, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_out_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_dst_ptr,
    out_ptr,
    linear_9_ptr,
    bias_ptr,
    out_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_edge_by_dst_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_edge_by_dst_ptr + 4 * n_tiles + tile, mask=valid, other=0)
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
        total += tl.load(out_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_edge_by_dst_ptr + tile, mask=valid, other=0).to(tl.int64)
    linear_9 = tl.load(linear_9_ptr + owner * 64 + f0, mask=valid, other=0.0)
    bias = tl.load(bias_ptr + f0)
    tl.store(out_ptr + owner * 64 + f0, (total + linear_9) + bias, mask=stored)
