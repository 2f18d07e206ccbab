# Columba: RGCNConv_backward
import triton
import triton.language as tl

@triton.jit
def sum_along(x, DIM: tl.constexpr):
    return tl.reduce(x, DIM, tl.standard._sum_combine, keep_dims=True)


@triton.jit
def longest_of(begin, end, OWNERS: tl.constexpr):
    # The most members that an owner of this block has.
    return tl.reduce(tl.reshape(end - begin, (OWNERS,)), 0, tl.standard._elementwise_max)

# gemm linear_8_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@root, via=one:node->one, transpose=true)
#   store @linear_8 = %1
# }
@triton.jit(do_not_specialize=["n_node"])
def RGCNConv_backward_linear_8_kernel(
    n_node,
    linear_8_ptr,
    grad_out_ptr,
    root_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: grad_out times root transposed. Stores linear_8."""
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
        grad_out = tl.load(grad_out_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        root = tl.load(root_ptr + (f0 * 64 + k_2))
        left = tl.reshape(grad_out, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(root, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_8_ptr + number * 64 + f0, product, mask=valid)


# traversal pointwise_10_kernel(owner=dst_rel, via=dst_rel:edge->dst_rel) {
#   %0: dst_rel[] f32 = degree(via=dst_rel:edge->dst_rel, to=f32)
#   %1: dst_rel[] f32 = constant(at=dst_rel, value=1.0, to=f32)
#   %2: dst_rel[] f32 = pointwise(%0, %1, function=maximum, scalars=[])
#   %3: dst_rel[] f32 = pointwise(%2, function=reciprocal, scalars=[])
#   store @pointwise_10 = %3
# }
@triton.jit(do_not_specialize=["n_dst_rel"])
def RGCNConv_backward_pointwise_10_kernel(
    n_dst_rel,
    segments_edge_by_dst_rel_ptr,
    pointwise_10_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of dst_rel, over its rows of edge (dst_rel:edge->dst_rel): maximum, reciprocal. Stores
    pointwise_10.
    """
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None]
    valid = owner < n_dst_rel
    begin = tl.load(segments_edge_by_dst_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_dst_rel_ptr + owner + 1, mask=valid, other=0)
    degree = (end - begin).to(tl.float32)
    constant = tl.full((1, 1), 1.0, tl.float32)
    tl.store(pointwise_10_ptr + owner, 1 / tl.maximum(degree, constant, propagate_nan=tl.PropagateNan.ALL), mask=valid)


# traversal reduce_11_kernel(owner=src_rel, via=src_rel:edge->src_rel) {
#   %0: edge[64] f32 = load(buffer=@grad_out, via=dst:edge->node, at=edge)
#   %1: edge[] f32 = load(buffer=@pointwise_10, via=dst_rel:edge->dst_rel, at=edge)
#   %2: edge[64] f32 = pointwise(%0, %1, function=mul, scalars=[])
#   %3: src_rel[64] f32 = reduce(%2, via=src_rel:edge->src_rel, op=sum)
#   store @reduce_11 = %3
# }
@triton.jit(do_not_specialize=["n_src_rel", "most_members"])
def RGCNConv_backward_reduce_11_kernel(
    n_src_rel,
    segments_edge_by_src_rel_ptr,
    most_members,
    reduce_11_ptr,
    dst_of_edge_by_src_rel_ptr,
    grad_out_ptr,
    dst_rel_of_edge_by_src_rel_ptr,
    pointwise_10_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of src_rel, over its rows of edge (src_rel:edge->src_rel): sum, mul. Stores reduce_11."""
    owner = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = owner < n_src_rel
    begin = tl.load(segments_edge_by_src_rel_ptr + owner, mask=valid, other=0)
    end = tl.load(segments_edge_by_src_rel_ptr + owner + 1, mask=valid, other=0)
    is_short = end - begin <= most_members
    end_2 = tl.where(is_short, end, begin)
    longest = longest_of(begin, end_2, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end_2
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        grad_out_dst = tl.load(grad_out_ptr + dst * 64 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_10_dst_rel = tl.load(pointwise_10_ptr + dst_rel, mask=present, other=0.0)
        total += tl.where(present, grad_out_dst * pointwise_10_dst_rel, 0)
    total = sum_along(total, 1)
    stored = valid & is_short
    tl.store(reduce_11_ptr + owner * 64 + f0, total, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_reduce_11_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_src_rel_ptr,
    dst_of_edge_by_src_rel_ptr,
    grad_out_ptr,
    dst_rel_of_edge_by_src_rel_ptr,
    pointwise_10_ptr,
    reduce_11_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """The members of hubs, tile by tile."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(hubs_edge_by_src_rel_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(hubs_edge_by_src_rel_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        present = position < end
        dst = tl.load(dst_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        grad_out_dst = tl.load(grad_out_ptr + dst * 64 + f0, mask=present, other=0.0)
        dst_rel = tl.load(dst_rel_of_edge_by_src_rel_ptr + position, mask=present, other=0).to(tl.int64)
        pointwise_10_dst_rel = tl.load(pointwise_10_ptr + dst_rel, mask=present, other=0.0)
        total += tl.where(present, grad_out_dst * pointwise_10_dst_rel, 0)
    total = sum_along(total, 1)
    tl.store(reduce_11_kernel_hub_sum_0_ptr + tile * 64 + f0, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_reduce_11_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_src_rel_ptr,
    reduce_11_ptr,
    reduce_11_kernel_hub_sum_0_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Puts together what the tiles of each hub have made."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    first_tile = tl.load(hubs_edge_by_src_rel_ptr + 3 * n_tiles + tile, mask=valid, other=0)
    end_tile = tl.load(hubs_edge_by_src_rel_ptr + 4 * n_tiles + tile, mask=valid, other=0)
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
        total += tl.load(reduce_11_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_edge_by_src_rel_ptr + tile, mask=valid, other=0).to(tl.int64)
    tl.store(reduce_11_ptr + owner * 64 + f0, total, mask=stored)


# gemm linear_12_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[64] f32 = load(buffer=@reduce_11, via=none, at=src_rel)
#   %1: src_rel[64] f32 = product(%0, w=@weight, via=rel:src_rel->rel, transpose=true)
#   store @linear_12 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_linear_12_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    linear_12_ptr,
    reduce_11_ptr,
    weight_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: reduce_11 times weight transposed of the row's rel. Stores linear_12."""
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
        reduce_11 = tl.load(reduce_11_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        weight = tl.load(weight_ptr + rel * 4096 + (f0 * 64 + k_2))
        left = tl.reshape(reduce_11, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_12_ptr + number * 64 + f0, product, mask=valid)


# traversal grad_x_kernel(owner=node, via=src:src_rel->node) {
#   %0: node[64] f32 = load(buffer=@linear_8, via=none, at=node)
#   %1: src_rel[64] f32 = load(buffer=@linear_12, via=none, at=src_rel)
#   %2: node[64] f32 = reduce(%1, via=src:src_rel->node, op=sum)
#   %3: node[64] f32 = pointwise(%0, %2, function=add, scalars=[])
#   store @grad_x = %3
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def RGCNConv_backward_grad_x_kernel(
    n_node,
    segments_src_rel_by_src_ptr,
    most_members,
    grad_x_ptr,
    linear_8_ptr,
    order_src_rel_by_src_ptr,
    linear_12_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of src_rel (src:src_rel->node): sum, add. Stores grad_x."""
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
        linear_12 = tl.load(linear_12_ptr + number * 64 + f0, mask=present, other=0.0)
        total += linear_12
    total = sum_along(total, 1)
    linear_8 = tl.load(linear_8_ptr + owner * 64 + f0, mask=valid, other=0.0)
    stored = valid & is_short
    tl.store(grad_x_ptr + owner * 64 + f0, linear_8 + total, mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_grad_x_kernel_of_hubs_1(
    n_tiles,
    hubs_src_rel_by_src_ptr,
    order_src_rel_by_src_ptr,
    linear_12_ptr,
    grad_x_kernel_hub_sum_0_ptr,
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
        linear_12 = tl.load(linear_12_ptr + number * 64 + f0, mask=present, other=0.0)
        total += linear_12
    total = sum_along(total, 1)
    tl.store(grad_x_kernel_hub_sum_0_ptr + tile * 64 + f0, total, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_grad_x_kernel_of_hubs(
    n_tiles,
    hubs_src_rel_by_src_ptr,
    grad_x_ptr,
    linear_8_ptr,
    grad_x_kernel_hub_sum_0_ptr,
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
        total += tl.load(grad_x_kernel_hub_sum_0_ptr + part.to(tl.int64) * 64 + f0, mask=counted, other=0)
    total = sum_along(total, 1)
    owner = tl.load(hubs_src_rel_by_src_ptr + tile, mask=valid, other=0).to(tl.int64)
    linear_8 = tl.load(linear_8_ptr + owner * 64 + f0, mask=valid, other=0.0)
    tl.store(grad_x_ptr + owner * 64 + f0, linear_8 + total, mask=stored)


# gemm_reduce grad_weight_kernel(via=rel:src_rel->rel, shared=true, schedule={tile_rows=1024}) {
#   %0: src_rel[64] f32 = load(buffer=@x, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[64] f32 = load(buffer=@reduce_11, via=none, at=src_rel)
#   left %0
#   right %1
#   store @grad_weight
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_grad_weight_kernel(
    tiles_src_rel_by_rel_32_to_1024_ptr,
    n_tiles,
    src_of_src_rel_ptr,
    x_ptr,
    reduce_11_ptr,
    grad_weight_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of src_rel of each rel of x by reduce_11, for every tile on its own. Stores grad_weight."""
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
        reduce_11 = tl.load(reduce_11_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x_src, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(reduce_11, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_weight_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def RGCNConv_backward_grad_weight_kernel_of_parts(
    grad_weight_parts_ptr,
    grad_weight_ptr,
    starts_of_tiles_src_rel_by_rel_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_weight_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_src_rel_by_rel_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(grad_weight_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_weight_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)


# gemm_reduce grad_root_kernel(via=one:node->one, shared=true, schedule={tile_rows=1024}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   left %0
#   right %1
#   store @grad_root
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_grad_root_kernel(
    tiles_node_by_one_32_to_1024_ptr,
    n_tiles,
    x_ptr,
    grad_out_ptr,
    grad_root_parts_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """The sum over the rows of node of x by grad_out, for every tile on its own. Stores grad_root."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_node_by_one_32_to_1024_ptr + n_tiles + tile)
    end = tl.load(tiles_node_by_one_32_to_1024_ptr + 2 * n_tiles + tile)
    k = tl.arange(0, DEPTH)[None, :]
    n = tl.arange(0, COLUMNS)[None, :]
    # ROWS rows of the tile at a time. Copies that transpose, which TF32 wants, are not worth having under way.
    total = tl.full((DEPTH, COLUMNS), 0, tl.float32)
    for start in tl.range(0, end - begin, ROWS, num_stages=3 if PRECISION == "ieee" else 1):
        position = begin + start + tl.arange(0, ROWS)[:, None]
        number = position.to(tl.int64)
        valid = position < end
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        grad_out = tl.load(grad_out_ptr + number * 64 + n, mask=valid, other=0.0)
        left = tl.trans(tl.reshape(x, (ROWS, DEPTH))).to(OPERAND)
        right = tl.reshape(grad_out, (ROWS, COLUMNS)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    # This tile's part.
    to_k = tl.arange(0, DEPTH)[:, None]
    to_n = tl.arange(0, COLUMNS)[None, :]
    part = grad_root_parts_ptr + tile.to(tl.int64) * 4096
    tl.store(part + to_k * 64 + to_n, total, mask=(to_k < 64) & (to_n < 64))


@triton.jit(do_not_specialize=[])
def RGCNConv_backward_grad_root_kernel_of_parts(
    grad_root_parts_ptr,
    grad_root_ptr,
    starts_of_tiles_node_by_one_32_to_1024_ptr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Puts together what the tiles of grad_root_kernel have made, in their order."""
    owner = tl.program_id(0)
    first = tl.load(starts_of_tiles_node_by_one_32_to_1024_ptr + owner)
    last = tl.load(starts_of_tiles_node_by_one_32_to_1024_ptr + owner + 1)
    # PARTS parts at a time, each in a row of its own; the rows are put together in the end.
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)[None, :]
    result = tl.full((PARTS, LANES), 0, tl.float32)
    for start in range(first, last, PARTS):
        at = start + tl.arange(0, PARTS)[:, None]
        present = (at < last) & (lane < 4096)
        part = tl.load(grad_root_parts_ptr + at.to(tl.int64) * 4096 + lane, mask=present, other=0)
        result += part
    result = sum_along(result, 0)
    tl.store(grad_root_ptr + owner.to(tl.int64) * 4096 + lane, result, mask=lane < 4096)


# traversal grad_bias_kernel(owner=one, via=one:node->one, schedule={split=4096}) {
#   %0: node[64] f32 = load(buffer=@grad_out, via=none, at=node)
#   %1: one[64] f32 = reduce(%0, via=one:node->one, op=sum)
#   store @grad_bias = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def RGCNConv_backward_grad_bias_kernel(
    n_tiles,
    tiles_node_by_one_32_to_4096_ptr,
    grad_bias_parts_ptr,
    grad_out_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For the whole graph, over its rows of node (one:node->one): sum. Stores grad_bias."""
    tile = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)[:, None, None]
    valid = tile < n_tiles
    begin = tl.load(tiles_node_by_one_32_to_4096_ptr + n_tiles + tile, mask=valid, other=0)
    end = tl.load(tiles_node_by_one_32_to_4096_ptr + 2 * n_tiles + tile, mask=valid, other=0)
    longest = longest_of(begin, end, OWNERS)
    f0 = tl.arange(0, 64)[None, None, :]
    total = tl.full((OWNERS, MEMBERS, 64), 0, tl.float32)
    # Over the rows of node, MEMBERS of each owner at a time: their sum.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None]
        number = position.to(tl.int64)
        present = position < end
        grad_out = tl.load(grad_out_ptr + number * 64 + f0, mask=present, other=0.0)
        total += grad_out
    total = sum_along(total, 1)
    tl.store(grad_bias_parts_ptr + tile * 64 + f0, total, mask=valid)


@triton.jit(do_not_specialize=[])
def RGCNConv_backward_grad_bias_kernel_grad_bias_of_parts(
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
