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

# traversal pointwise_35_kernel(owner=ntype, via=none) {
#   %0: ntype[] f32 = load(buffer=@skip, via=none, at=ntype)
#   %1: ntype[] f32 = pointwise(%0, function=sigmoid, scalars=[])
#   %2: ntype[] f32 = constant(at=ntype, value=1.0, to=f32)
#   %3: ntype[1] f32 = reshape(%1, to=[1])
#   %4: ntype[1] f32 = pointwise(%2, %3, function=sub, scalars=[])
#   store @pointwise_25 = %1
#   store @pointwise_35 = %4
# }
@triton.jit(do_not_specialize=["n_ntype"])
def HGTConv_pointwise_35_kernel(
    n_ntype,
    pointwise_25_ptr,
    skip_ptr,
    pointwise_35_ptr,
    ROWS: tl.constexpr,
):
    """For each row of ntype: sigmoid, sub. Stores pointwise_25, pointwise_35."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n_ntype
    skip = tl.load(skip_ptr + row, mask=valid, other=0.0)
    sigmoid = 1 / (1 + tl.exp(-skip))
    tl.store(pointwise_25_ptr + row, sigmoid, mask=valid)
    tl.store(pointwise_35_ptr + row, 1.0 - sigmoid, mask=valid)


# gemm linear_26_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@k_weight, via=ntype:node->ntype, transpose=false)
#   %2: node[64] f32 = load(buffer=@k_bias, via=ntype:node->ntype, at=node)
#   %3: node[64] f32 = pointwise(%1, %2, function=add, scalars=[])
#   store @saved_0 = %3
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_linear_26_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    saved_0_ptr,
    x_ptr,
    k_weight_ptr,
    k_bias_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: x times k_weight of the row's ntype; add. Stores saved_0."""
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
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        k_weight = tl.load(k_weight_ptr + ntype * 4096 + (k_2 * 64 + f0))
        left = tl.reshape(x, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(k_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    k_bias_ntype = tl.load(k_bias_ptr + ntype * 64 + f0)
    tl.store(saved_0_ptr + number * 64 + f0, product + k_bias_ntype, mask=valid)


# traversal pointwise_27_kernel(owner=rel, via=none) {
#   %0: rel[4,16,16] f32 = load(buffer=@att, via=none, at=rel)
#   %1: rel[4] f32 = load(buffer=@prior, via=none, at=rel)
#   %2: rel[4,1,1] f32 = reshape(%1, to=[4, 1, 1])
#   %3: rel[4,16,16] f32 = pointwise(%0, %2, function=mul, scalars=[])
#   store @pointwise_27 = %3
# }
@triton.jit(do_not_specialize=["n_rel"])
def HGTConv_pointwise_27_kernel(
    n_rel,
    pointwise_27_ptr,
    att_ptr,
    prior_ptr,
    ROWS: tl.constexpr,
):
    """For each row of rel: mul. Stores pointwise_27."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None, None]
    f0 = tl.arange(0, 4)[None, :, None, None]
    f1 = tl.arange(0, 16)[None, None, :, None]
    f2 = tl.arange(0, 16)[None, None, None, :]
    at = f0 * 256 + f1 * 16 + f2
    valid = row < n_rel
    att = tl.load(att_ptr + row * 1024 + at, mask=valid, other=0.0)
    prior = tl.load(prior_ptr + row * 4 + f0, mask=valid, other=0.0)
    tl.store(pointwise_27_ptr + row * 1024 + at, att * prior, mask=valid)


# gemm saved_1_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[64] f32 = load(buffer=@saved_0, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[4,16] f32 = reshape(%0, to=[4, 16])
#   %2: src_rel[4,16] f32 = product(%1, w=@pointwise_27, via=rel:src_rel->rel, transpose=false)
#   store @saved_1 = %2
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_saved_1_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    saved_1_ptr,
    src_of_src_rel_ptr,
    saved_0_ptr,
    pointwise_27_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: saved_0 times pointwise_27 of the row's rel. Stores saved_1."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    number = position.to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    k = tl.arange(0, DEPTH)[None, :, None]
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    # The row's matrices one after the other.
    for head in tl.static_range(4):
        matrix = head
        total = tl.full((ROWS, 16), 0, tl.float32)
        saved_0_src = tl.load(saved_0_ptr + src * 64 + (matrix * 16 + k), mask=valid, other=0.0)
        pointwise_27 = tl.load(pointwise_27_ptr + rel * 1024 + (matrix * 256 + k_2 * 16 + f1))
        left = tl.reshape(saved_0_src, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(pointwise_27, (DEPTH, 16)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        product = tl.reshape(total, (ROWS, 1, 16))
        tl.store(saved_1_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# gemm linear_28_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@q_weight, via=ntype:node->ntype, transpose=false)
#   store @linear_28 = %1
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_linear_28_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    linear_28_ptr,
    x_ptr,
    q_weight_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: x times q_weight of the row's ntype. Stores linear_28."""
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
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        q_weight = tl.load(q_weight_ptr + ntype * 4096 + (k_2 * 64 + f0))
        left = tl.reshape(x, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(q_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    tl.store(linear_28_ptr + number * 64 + f0, product, mask=valid)


# gemm linear_31_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@v_weight, via=ntype:node->ntype, transpose=false)
#   %2: node[64] f32 = load(buffer=@v_bias, via=ntype:node->ntype, at=node)
#   %3: node[64] f32 = pointwise(%1, %2, function=add, scalars=[])
#   store @saved_5 = %3
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_linear_31_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    saved_5_ptr,
    x_ptr,
    v_weight_ptr,
    v_bias_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: x times v_weight of the row's ntype; add. Stores saved_5."""
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
        x = tl.load(x_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        v_weight = tl.load(v_weight_ptr + ntype * 4096 + (k_2 * 64 + f0))
        left = tl.reshape(x, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(v_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    v_bias_ntype = tl.load(v_bias_ptr + ntype * 64 + f0)
    tl.store(saved_5_ptr + number * 64 + f0, product + v_bias_ntype, mask=valid)


# gemm saved_6_kernel(schedule={tile_rows=32}) {
#   %0: src_rel[64] f32 = load(buffer=@saved_5, via=src:src_rel->node, at=src_rel)
#   %1: src_rel[4,16] f32 = reshape(%0, to=[4, 16])
#   %2: src_rel[4,16] f32 = product(%1, w=@msg, via=rel:src_rel->rel, transpose=false)
#   store @saved_6 = %2
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_saved_6_kernel(
    tiles_src_rel_by_rel_32_ptr,
    n_tiles,
    saved_6_ptr,
    src_of_src_rel_ptr,
    saved_5_ptr,
    msg_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of src_rel: saved_5 times msg of the row's rel. Stores saved_6."""
    tile = tl.program_id(0)
    begin = tl.load(tiles_src_rel_by_rel_32_ptr + n_tiles + tile)
    position = begin + tl.arange(0, ROWS)[:, None, None]
    number = position.to(tl.int64)
    f1 = tl.arange(0, 16)[None, None, :]
    end = tl.load(tiles_src_rel_by_rel_32_ptr + 2 * n_tiles + tile)
    valid = position < end
    src = tl.load(src_of_src_rel_ptr + position, mask=valid, other=0).to(tl.int64)
    k = tl.arange(0, DEPTH)[None, :, None]
    rel = tl.load(tiles_src_rel_by_rel_32_ptr + tile).to(tl.int64)
    k_2 = tl.arange(0, DEPTH)[:, None, None]
    # The row's matrices one after the other.
    for head in tl.static_range(4):
        matrix = head
        total = tl.full((ROWS, 16), 0, tl.float32)
        saved_5_src = tl.load(saved_5_ptr + src * 64 + (matrix * 16 + k), mask=valid, other=0.0)
        msg = tl.load(msg_ptr + rel * 1024 + (matrix * 256 + k_2 * 16 + f1))
        left = tl.reshape(saved_5_src, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(msg, (DEPTH, 16)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        product = tl.reshape(total, (ROWS, 1, 16))
        tl.store(saved_6_ptr + number * 64 + (matrix * 16 + f1), product, mask=valid)


# traversal saved_9_kernel(owner=node, via=dst:edge->node) {
#   %0: node[64] f32 = load(buffer=@linear_28, via=none, at=node)
#   %1: node[64] f32 = load(buffer=@q_bias, via=ntype:node->ntype, at=node)
#   %2: node[64] f32 = pointwise(%0, %1, function=add, scalars=[])
#   %3: edge[4,16] f32 = load(buffer=@saved_1, via=src_rel:edge->src_rel, at=edge)
#   %4: edge[64] f32 = lift(%2, via=dst:edge->node)
#   %5: edge[4,16] f32 = reshape(%4, to=[4, 16])
#   %6: edge[4,16] f32 = pointwise(%3, %5, function=mul, scalars=[])
#   %7: edge[4] f32 = feature_reduce(%6, op=sum, axes=[1])
#   %8: edge[] f32 = constant(at=edge, value=0.25, to=f32)
#   %9: edge[4] f32 = pointwise(%7, %8, function=mul, scalars=[])
#   %10: node[4] f32 = reduce(%9, via=dst:edge->node, op=max)
#   %11: edge[4] f32 = lift(%10, via=dst:edge->node)
#   %12: edge[4] f32 = pointwise(%9, %11, function=sub, scalars=[])
#   %13: edge[4] f32 = pointwise(%12, function=exp, scalars=[])
#   %14: node[4] f32 = reduce(%13, via=dst:edge->node, op=sum)
#   %15: node[] f32 = constant(at=node, value=0.0, to=f32)
#   %16: node[4] bool = pointwise(%14, %15, function=le, scalars=[])
#   %17: node[] f32 = constant(at=node, value=1.0, to=f32)
#   %18: node[4] f32 = pointwise(%16, %17, %14, function=where, scalars=[])
#   %19: node[4] f32 = pointwise(%18, function=reciprocal, scalars=[])
#   %20: edge[4,1] f32 = reshape(%13, to=[4, 1])
#   %21: edge[4,16] f32 = load(buffer=@saved_6, via=src_rel:edge->src_rel, at=edge)
#   %22: edge[4,16] f32 = pointwise(%20, %21, function=mul, scalars=[])
#   %23: node[4,16] f32 = reduce(%22, via=dst:edge->node, op=sum)
#   %24: node[4,1] f32 = reshape(%19, to=[4, 1])
#   %25: node[4,16] f32 = pointwise(%23, %24, function=mul, scalars=[])
#   %26: node[64] f32 = reshape(%25, to=[64])
#   %27: node[64] f32 = pointwise(%26, function=gelu, scalars=[])
#   store @saved_2 = %2
#   store @saved_3 = %7
#   store @saved_4 = %10
#   store @saved_7 = %19
#   store @saved_8 = %25
#   store @saved_9 = %27
# }
@triton.jit(do_not_specialize=["n_node", "most_members"])
def HGTConv_saved_9_kernel(
    n_node,
    segments_edge_by_dst_ptr,
    most_members,
    saved_2_ptr,
    linear_28_ptr,
    ntype_of_node_ptr,
    q_bias_ptr,
    order_edge_by_dst_ptr,
    saved_3_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_1_ptr,
    saved_4_ptr,
    saved_7_ptr,
    saved_8_ptr,
    saved_6_ptr,
    saved_9_ptr,
    OWNERS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """For each row of node, over its rows of edge (dst:edge->node): max, sum, add, mul, sum over features, sub, exp,
    le, where, reciprocal, gelu. Stores saved_2, saved_3, saved_4, saved_7, saved_8, saved_9.
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
    linear_28 = tl.load(linear_28_ptr + owner * 64 + at, mask=valid, other=0.0)
    ntype = tl.load(ntype_of_node_ptr + owner, mask=valid, other=0).to(tl.int64)
    q_bias_ntype = tl.load(q_bias_ptr + ntype * 64 + at, mask=valid, other=0.0)
    add = linear_28 + q_bias_ntype
    largest = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their max, the sum of an online softmax's exponentials, the sum of products with an online softmax's exponentials, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end_2
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_1_src_rel = tl.load(saved_1_ptr + src_rel * 64 + at, mask=present, other=0.0)
        sum_value = sum_along(saved_1_src_rel * add, 3)
        counted = tl.where(present, sum_value * 0.25, -float('inf'))
        top = tl.maximum(largest, counted, propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(top == -float('inf'), 0, top)
        scale = tl.exp(largest - base)
        weight = tl.exp(counted - base)
        largest = top
        # What is summed so far shrinks where there is a new largest logit.
        total = total * scale + weight
        saved_6_src_rel = tl.load(saved_6_ptr + src_rel * 64 + at, mask=present, other=0.0)
        # What is summed so far shrinks where there is a new largest logit.
        total_2 = total_2 * scale + weight * saved_6_src_rel
        number = tl.load(order_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        tl.store(saved_3_ptr + number * 4 + f0, sum_value, mask=present)
    top_2 = tl.where(end_2 > begin, max_along(largest, 1), 0)
    rescale = tl.exp(largest - top_2)
    largest = top_2
    total = sum_along(total * rescale, 1)
    total_2 = sum_along(total_2 * rescale, 1)
    stored = valid & is_short
    tl.store(saved_2_ptr + owner * 64 + at, add, mask=stored)
    tl.store(saved_4_ptr + owner * 4 + f0, largest, mask=stored)
    constant = tl.full((1, 1, 1, 1), 1.0, tl.float32)
    reciprocal = 1 / tl.where(total <= 0.0, constant, total)
    tl.store(saved_7_ptr + owner * 4 + f0, reciprocal, mask=stored)
    mul = total_2 * reciprocal
    tl.store(saved_8_ptr + owner * 64 + at, mul, mask=stored)
    tl.store(saved_9_ptr + owner * 64 + at, mul * 0.5 * (1 + tl.erf(mul * 0.7071067811865476)), mask=stored)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_saved_9_kernel_of_hubs_1(
    n_tiles,
    hubs_edge_by_dst_ptr,
    linear_28_ptr,
    ntype_of_node_ptr,
    q_bias_ptr,
    order_edge_by_dst_ptr,
    saved_3_ptr,
    src_rel_of_edge_by_dst_ptr,
    saved_1_ptr,
    saved_6_ptr,
    saved_9_kernel_hub_max_0_ptr,
    saved_9_kernel_hub_sum_1_ptr,
    saved_9_kernel_hub_sum_2_ptr,
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
    owner = tl.load(hubs_edge_by_dst_ptr + tile, mask=valid, other=0).to(tl.int64)
    linear_28 = tl.load(linear_28_ptr + owner * 64 + at, mask=valid, other=0.0)
    ntype = tl.load(ntype_of_node_ptr + owner, mask=valid, other=0).to(tl.int64)
    q_bias_ntype = tl.load(q_bias_ptr + ntype * 64 + at, mask=valid, other=0.0)
    add = linear_28 + q_bias_ntype
    largest = tl.full((OWNERS, MEMBERS, 4, 1), -float('inf'), tl.float32)
    total = tl.full((OWNERS, MEMBERS, 4, 1), 0, tl.float32)
    total_2 = tl.full((OWNERS, MEMBERS, 4, 16), 0, tl.float32)
    # Over the rows of edge, MEMBERS of each owner at a time: their max, the sum of an online softmax's exponentials, the sum of products with an online softmax's exponentials, what each member stores.
    for start in range(0, longest, MEMBERS):
        position = begin + start + tl.arange(0, MEMBERS)[None, :, None, None]
        present = position < end
        src_rel = tl.load(src_rel_of_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        saved_1_src_rel = tl.load(saved_1_ptr + src_rel * 64 + at, mask=present, other=0.0)
        sum_value = sum_along(saved_1_src_rel * add, 3)
        counted = tl.where(present, sum_value * 0.25, -float('inf'))
        top = tl.maximum(largest, counted, propagate_nan=tl.PropagateNan.ALL)
        base = tl.where(top == -float('inf'), 0, top)
        scale = tl.exp(largest - base)
        weight = tl.exp(counted - base)
        largest = top
        # What is summed so far shrinks where there is a new largest logit.
        total = total * scale + weight
        saved_6_src_rel = tl.load(saved_6_ptr + src_rel * 64 + at, mask=present, other=0.0)
        # What is summed so far shrinks where there is a new largest logit.
        total_2 = total_2 * scale + weight * saved_6_src_rel
        number = tl.load(order_edge_by_dst_ptr + position, mask=present, other=0).to(tl.int64)
        tl.store(saved_3_ptr + number * 4 + f0, sum_value, mask=present)
    top_2 = max_along(largest, 1)
    rescale = tl.exp(largest - tl.where(top_2 == -float('inf'), 0, top_2))
    largest = top_2
    tl.store(saved_9_kernel_hub_max_0_ptr + tile * 4 + f0, largest, mask=valid)
    total = sum_along(total * rescale, 1)
    tl.store(saved_9_kernel_hub_sum_1_ptr + tile * 4 + f0, total, mask=valid)
    total_2 = sum_along(total_2 * rescale, 1)
    tl.store(saved_9_kernel_hub_sum_2_ptr + tile * 64 + f0 * 16 + f1, total_2, mask=valid)


@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_saved_9_kernel_of_hubs(
    n_tiles,
    hubs_edge_by_dst_ptr,
    saved_2_ptr,
    linear_28_ptr,
    ntype_of_node_ptr,
    q_bias_ptr,
    saved_4_ptr,
    saved_7_ptr,
    saved_8_ptr,
    saved_9_ptr,
    saved_9_kernel_hub_max_0_ptr,
    saved_9_kernel_hub_sum_1_ptr,
    saved_9_kernel_hub_sum_2_ptr,
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
        largest = tl.maximum(largest, tl.load(saved_9_kernel_hub_max_0_ptr + part.to(tl.int64) * 4 + f0, mask=counted, other=-float('inf')), propagate_nan=tl.PropagateNan.ALL)
    largest = max_along(largest, 1)
    # Over the tiles of the hub, MEMBERS at a time: sums, relative to each one's maximum.
    for start in range(0, tiles, MEMBERS):
        part_2 = first_tile + start + tl.arange(0, MEMBERS)[None, :, None, None]
        counted_2 = part_2 < after
        weight = tl.exp(tl.load(saved_9_kernel_hub_max_0_ptr + part_2.to(tl.int64) * 4 + f0, mask=counted_2, other=-float('inf')) - largest)
        total += tl.load(saved_9_kernel_hub_sum_1_ptr + part_2.to(tl.int64) * 4 + f0, mask=counted_2, other=0) * weight
        total_2 += tl.load(saved_9_kernel_hub_sum_2_ptr + part_2.to(tl.int64) * 64 + f0 * 16 + f1, mask=counted_2, other=0) * weight
    total = sum_along(total, 1)
    total_2 = sum_along(total_2, 1)
    owner = tl.load(hubs_edge_by_dst_ptr + tile, mask=valid, other=0).to(tl.int64)
    at = f0 * 16 + f1
    linear_28 = tl.load(linear_28_ptr + owner * 64 + at, mask=valid, other=0.0)
    ntype = tl.load(ntype_of_node_ptr + owner, mask=valid, other=0).to(tl.int64)
    q_bias_ntype = tl.load(q_bias_ptr + ntype * 64 + at, mask=valid, other=0.0)
    add = linear_28 + q_bias_ntype
    tl.store(saved_2_ptr + owner * 64 + at, add, mask=stored)
    tl.store(saved_4_ptr + owner * 4 + f0, largest, mask=stored)
    constant = tl.full((1, 1, 1, 1), 1.0, tl.float32)
    reciprocal = 1 / tl.where(total <= 0.0, constant, total)
    tl.store(saved_7_ptr + owner * 4 + f0, reciprocal, mask=stored)
    mul = total_2 * reciprocal
    tl.store(saved_8_ptr + owner * 64 + at, mul, mask=stored)
    tl.store(saved_9_ptr + owner * 64 + at, mul * 0.5 * (1 + tl.erf(mul * 0.7071067811865476)), mask=stored)


# gemm linear_34_kernel(schedule={tile_rows=32}) {
#   %0: node[64] f32 = load(buffer=@saved_9, via=none, at=node)
#   %1: node[64] f32 = product(%0, w=@out_weight, via=ntype:node->ntype, transpose=false)
#   %2: node[64] f32 = load(buffer=@out_bias, via=ntype:node->ntype, at=node)
#   %3: node[64] f32 = pointwise(%1, %2, function=add, scalars=[])
#   %4: node[] f32 = load(buffer=@pointwise_25, via=ntype:node->ntype, at=node)
#   %5: node[1] f32 = reshape(%4, to=[1])
#   %6: node[64] f32 = pointwise(%5, %3, function=mul, scalars=[])
#   %7: node[1] f32 = load(buffer=@pointwise_35, via=ntype:node->ntype, at=node)
#   %8: node[64] f32 = load(buffer=@x, via=none, at=node)
#   %9: node[64] f32 = pointwise(%7, %8, function=mul, scalars=[])
#   %10: node[64] f32 = pointwise(%6, %9, function=add, scalars=[])
#   store @saved_10 = %3
#   store @out = %10
# }
@triton.jit(do_not_specialize=["n_tiles"])
def HGTConv_linear_34_kernel(
    tiles_node_by_ntype_32_ptr,
    n_tiles,
    order_node_by_ntype_ptr,
    saved_10_ptr,
    saved_9_ptr,
    out_weight_ptr,
    out_bias_ptr,
    out_ptr,
    pointwise_25_ptr,
    pointwise_35_ptr,
    x_ptr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """For each row of node: saved_9 times out_weight of the row's ntype; add, mul. Stores saved_10, out."""
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
        saved_9 = tl.load(saved_9_ptr + number * 64 + k, mask=valid, other=0.0)
        k_2 = depth + tl.arange(0, DEPTH)[:, None]
        out_weight = tl.load(out_weight_ptr + ntype * 4096 + (k_2 * 64 + f0))
        left = tl.reshape(saved_9, (ROWS, DEPTH)).to(OPERAND)
        right = tl.reshape(out_weight, (DEPTH, 64)).to(OPERAND)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    product = tl.reshape(total, (ROWS, 64))
    out_bias_ntype = tl.load(out_bias_ptr + ntype * 64 + f0)
    add = product + out_bias_ntype
    tl.store(saved_10_ptr + number * 64 + f0, add, mask=valid)
    pointwise_25_ntype = tl.load(pointwise_25_ptr + ntype)
    pointwise_35_ntype = tl.load(pointwise_35_ptr + ntype)
    x = tl.load(x_ptr + number * 64 + f0, mask=valid, other=0.0)
    tl.store(out_ptr + number * 64 + f0, (pointwise_25_ntype * add) + (pointwise_35_ntype * x), mask=valid)
