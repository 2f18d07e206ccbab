"""C++ for matrix products over the rows of a space."""

from __future__ import annotations

from typing import Any

from columba.codegen.cpp.fetches import fetch_ahead
from columba.codegen.cpp.names import CppNames
from columba.codegen.cpp.places import RowPlaces
from columba.codegen.cpp.rows import Array, Rows
from columba.codegen.cpp.scalars import computed, is_narrow, stored
from columba.codegen.cpp.slots import unknown_below
from columba.codegen.cpp.traversal import KernelText, know_views, threads_of
from columba.ir.indices import Segments, Tiles
from columba.ir.plan.kernels import Gemm, GemmReduce, Load, Product, Store, product_of
from columba.ir.program.ops import Reshape, Slice, Value
from columba.ir.spaces import IndexMap, Space
from columba.ir.types import DType


def gemm_text(kernel: Gemm, names: CppNames) -> KernelText:
    """The text of a matrix product."""
    product = product_of(kernel)
    assert product.via is not None
    places = RowPlaces(names, None, product.via)
    direct, rest = _direct_store(kernel, product)
    k, n = product.x.shape[-1], product.shape[-1]
    fields = {
        "depth": k,
        "columns": n,
        "lead": product.x.type.size // k,
        "matrices": 1 if product.shared else product.x.type.size // k,
        "kind": computed(product.dtype),
        "weight": names.buffer(product.w),
        "rounded": None if product.rounded is None else stored(product.rounded),
        "transposed": "true" if product.transpose else "false",
        "tile_rows": kernel.schedule.tile_rows,
        "threads": threads_of(kernel.schedule),
        **_left(product.x, places, kernel),
        "out": None
        if direct is None
        else _row_pointer(places, Array(names.buffer(direct.buffer), _row(places, product), (), product.dtype)),
        "epilogue": _epilogue(rest, product, places),
        **_tiles(product.via, kernel.schedule.tile_rows, names),
    }
    number = (
        direct is not None
        or any(places.reads_own_number(v) for v in unknown_below([product.x, *(s.value for s in rest)], ()))
        or bool(rest)
    )
    fields["own_number"] = places.own_number() if number else []
    return KernelText("gemm.cpp.jinja", fields)


def gemm_reduce_text(kernel: GemmReduce, names: CppNames) -> KernelText:
    """The text of a sum of outer products."""
    places = RowPlaces(names, None, kernel.via)
    k, n = kernel.x.shape[-1], kernel.y.shape[-1]
    lead = kernel.x.type.size // k
    below = unknown_below([kernel.x, kernel.y], ())
    whole = n % vector_lanes(kernel.y.dtype) == 0
    left, right = _pointer(kernel.x, places), _pointer(kernel.y, places) if whole else None
    rows = places.rows()
    for v in below:
        if isinstance(v, Load):
            rows.known[v] = places.load(v)
    know_views(rows, below)
    if left is None:
        rows.assign(Array("left_row", "0", kernel.x.shape, kernel.x.dtype), kernel.x)
    if right is None and whole:
        rows.assign(Array("right_row", "0", kernel.y.shape, kernel.y.dtype), kernel.y)
    elif right is None:
        _copy_padded(rows, kernel.y, n)
    fields = {
        "depth": k,
        "columns": n,
        "lead": lead,
        "matrices": 1 if kernel.shared else lead,
        "kind": computed(kernel.out.type.dtype),
        "narrow": is_narrow(kernel.out.type.dtype),
        "out": names.buffer(kernel.out),
        "tile_rows": kernel.schedule.tile_rows,
        "threads": threads_of(kernel.schedule),
        "left": left,
        "right": right,
        "body": [*(fetch_ahead(places, kernel.schedule, below, ()) if rows.lines else []), *rows.lines],
        "own_number": places.own_number() if any(places.reads_own_number(v) for v in below) else [],
        **_tiles(kernel.via, kernel.schedule.tile_rows, names),
    }
    if fields["tiles_array"]:
        fields |= {"segments": names.index(Segments(kernel.via)), "owners": names.count(kernel.via.coarse)}
    return KernelText("gemm_reduce.cpp.jinja", fields)


def vector_lanes(dtype: DType) -> int:
    """Elements of a row that are sure to fill whole vectors, whatever the processor: 64 bytes of them."""
    return 64 // dtype.itemsize


def _copy_padded(rows: Rows, value: Value, width: int) -> None:
    """Copies the vectors of a row's leading dimensions to where each takes whole machine vectors."""
    if value not in rows.known and not (isinstance(value, Reshape) and value.x in rows.known):
        rows.materialize(value)
    place = rows.known[value] if value in rows.known else rows.known[value.x]  # type: ignore[attr-defined]
    element = place.flat("i" if value.type.size == width else f"l * {width} + i")
    rows.lines += [
        "for (int64_t l = 0; l < LEAD; ++l)",
        f"  for (int i = 0; i < {width}; ++i) right_row[l * PADDED + i] = {element};",
    ]


def _direct_store(kernel: Gemm, product: Product) -> tuple[Store | None, list[Store]]:
    """The store that the product itself goes to, if any, and the others. Narrow rows are rounded after the product."""
    if is_narrow(product.dtype):
        return None, list(kernel.stores)
    direct = next((s for s in kernel.stores if s.value is product), None)
    return direct, [s for s in kernel.stores if s is not direct]


def _left(x: Value, places: RowPlaces, kernel: Gemm) -> dict[str, Any]:
    """The left operand's rows: read in place, or computed into a block first."""
    pointer = _pointer(x, places)
    if pointer is not None:
        return {"prologue": [], "left": pointer}
    rows = places.rows()
    below = unknown_below([x], ())
    for v in below:
        if isinstance(v, Load):
            rows.known[v] = places.load(v)
    know_views(rows, below)
    rows.assign(Array("left_row", "0", x.shape, x.dtype), x)
    return {"prologue": [*fetch_ahead(places, kernel.schedule, below, ()), *rows.lines], "left": ""}


def _pointer(x: Value, places: RowPlaces) -> str | None:
    """Where the rows of an operand that a kernel can read in place begin. Narrow ones are widened into a block first."""
    if is_narrow(x.dtype):
        return None
    base, start = x.x if isinstance(x, Reshape) else x, 0
    if isinstance(base, Slice) and base.step == 1 and len(base.shape) == 1:
        start, base = base.start, base.x
    if not isinstance(base, Load):
        return None
    return _row_pointer(places, places.load(base)) + (f" + {start}" if start else "")


def _row_pointer(places: RowPlaces, place: Array) -> str:
    return f"{place.base} + {place.offset}"


def _row(places: RowPlaces, product: Product) -> str:
    return f"(int64_t){places.number(product)} * {product.type.size}"


def _epilogue(stores: list[Store], product: Product, places: RowPlaces) -> list[str]:
    if not stores:
        return []
    rows = places.rows()
    rows.known[product] = Array("product_row", "0", product.shape, product.dtype)
    for v in unknown_below([s.value for s in stores], rows.known):
        if isinstance(v, Load):
            rows.known[v] = places.load(v)
    rows.prepare([s.value for s in stores])
    for store in stores:
        places.store(rows, store)
    return rows.lines


def _tiles(via: IndexMap, rows: int, names: CppNames) -> dict[str, Any]:
    """The tile table, or the number of rows where one matrix serves all."""
    if via.coarse is Space.ONE:
        return {"tiles_array": None, "rows": names.count(via.fine)}
    tiles = Tiles(via, rows)
    return {"tiles_array": names.index(tiles), "tile_count": names.tiles(tiles), "rows": names.count(via.fine)}
