"""Row iteration: where the rows of each kind of kernel stand."""

from __future__ import annotations

from columba.codegen.triton.index import Index
from columba.codegen.triton.items import Axis, Item, Items
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.scalars import CALLS, INFIX, computed
from columba.codegen.triton.values import Row, UnsupportedValue, Values, start_of
from columba.ir.indices import Hubs, Lookup, Order, Segments, Tiles
from columba.ir.plan.kernels import Load
from columba.ir.plan.plan import is_sorted
from columba.ir.program.ops import Degree, Reduce, Value
from columba.ir.spaces import IndexMap, Space

OWNER = Axis(0, "OWNERS")
MEMBER = Axis(1, "MEMBERS")
ROW = Axis(0, "ROWS")


class RowWise:
    """Rows one beside the other."""

    def __init__(self, items: Items, names: TritonNames, owner: Space) -> None:
        self.items = items
        self.names = names
        self.owner = owner
        row = items("tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS){at0}", name="row", add=[ROW])
        valid = items(f"{{0}} < {names.count(owner)}", row, name="valid")
        self.rows = Row(row, valid)

    def row(self, at: Space) -> Row:
        return self.rows

    def number(self, at: Space) -> Item:
        return self.rows.position

    def lookup(self, load: Load) -> Item:
        return look_up(self.items, self.names, load, Lookup(load.via), self.rows)  # type: ignore[arg-type]

    def special(self, v: Value, index: Index) -> Item:
        raise UnsupportedValue(f"{v.op_name} needs members or a product")


def look_up(items: Items, names: TritonNames, load: Load, array: Lookup, row: Row) -> Item:
    """Rows that an index array leads to."""
    assert load.via is not None
    pointer = items(names.array(array))
    name = str(load.via.name)
    if row.valid is None:
        return items("tl.load({0} + {1:a}).to(tl.int64)", pointer, row.position, name=name)
    text = "tl.load({0} + {1:a}, mask={2}, other=0).to(tl.int64)"
    return items(text, pointer, row.position, row.valid, name=name)


class Walk:
    """Positions in the order of a map, and the rows that stand there."""

    def __init__(self, items: Items, names: TritonNames, via: IndexMap, row: Row) -> None:
        self.items = items
        self.names = names
        self.via = via
        self.row = row
        self.sorted = is_sorted(via)

    def number(self) -> Item:
        if self.sorted:
            return self.items("{0:a}.to(tl.int64)", self.row.position, name="number")
        order = self.items(self.names.array(Order(self.via)))
        text = "tl.load({0} + {1:a}, mask={2}, other=0).to(tl.int64)"
        assert self.row.valid is not None
        return self.items(text, order, self.row.position, self.row.valid, name="number")

    def lookup(self, load: Load) -> Item:
        assert load.via is not None
        array = Lookup(load.via, None if self.sorted else self.via)
        return look_up(self.items, self.names, load, array, self.row)


class WithMembers:
    """Owners, and in a loop the members of each; or, if the owners are cut into tiles, the members of a tile."""

    def __init__(
        self, items: Items, names: TritonNames, via: IndexMap, tiles: Tiles | Hubs | None, hubs: Hubs | None = None
    ) -> None:
        self.items = items
        self.names = names
        self.via = via
        self.cut = tiles is not None
        self.values: Values | None = None
        self.folds: dict[Item, Reduce] = {}
        self.weighted: dict[Item, Item] = {}  # sums weighted by exponentials of what is below its maximum: that
        if tiles is None:
            self._whole_owners(names.count(via.coarse), hubs)
        else:
            self._tiles(tiles)
        position = items("{0:a} + start + tl.arange(0, MEMBERS){at1}", self.begin, name="position", add=[MEMBER])
        self.present = items("{0:a} < {1:a}", position, self.end, name="present")
        self.members = Row(position, self.present)
        self.walk = Walk(items, names, via, self.members)

    def _whole_owners(self, count: str, hubs: Hubs | None) -> None:
        """``hubs`` are left out: they have no members here, and nothing is stored for them."""
        items = self.items
        owner = items("tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS){at0}", name="owner", add=[OWNER])
        valid = items(f"{{0}} < {count}", owner, name="valid")
        segments = items(self.names.array(Segments(self.via)))
        self.begin = items("tl.load({0} + {1}, mask={2}, other=0)", segments, owner, valid, name="begin")
        self.end = items("tl.load({0} + {1} + 1, mask={2}, other=0)", segments, owner, valid, name="end")
        if hubs is None:
            self.owners = self.outer = Row(owner, valid)
            return
        is_short = items(f"{{1:a}} - {{0:a}} <= {self.names.most(hubs)}", self.begin, self.end, name="is_short")
        self.end = items("tl.where({0}, {1}, {2})", is_short, self.end, self.begin, name="end")
        self.owners = self.outer = Row(owner, valid, items("{0:a} & {1:a}", valid, is_short, name="stored"))

    def _tiles(self, tiles: Tiles | Hubs) -> None:
        items, n = self.items, self.names.tiles(tiles)
        tile = items("tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS){at0}", name="tile", add=[OWNER])
        valid = items(f"{{0}} < {n}", tile, name="valid")
        table = items(self.names.array(tiles))

        def row(number: int, name: str, more: str = "") -> Item:
            at = {0: "", 1: f"{n} + "}.get(number, f"{number} * {n} + ")
            text = f"tl.load({{0}} + {at}{{1}}, mask={{2}}, other=0){more}"
            return items(text, table, tile, valid, name=name)

        owner = row(0, "owner", ".to(tl.int64)")
        self.begin, self.end = row(1, "begin"), row(2, "end")
        self.owners, self.outer = Row(owner, valid), Row(tile, valid)
        if isinstance(tiles, Hubs):
            self.first, self.after = row(3, "first_tile"), row(4, "end_tile")
            is_first = items("{0:a} == {1:a}", tile, self.first, name="is_first")
            self.owners = Row(owner, valid, items("{0:a} & {1:a}", valid, is_first, name="stored"))

    def row(self, at: Space) -> Row:
        return self.members if at is self.via.fine else self.owners

    def number(self, at: Space) -> Item:
        return self.walk.number() if at is self.via.fine else self.owners.position

    def lookup(self, load: Load) -> Item:
        if load.at is self.via.fine:
            return self.walk.lookup(load)
        return look_up(self.items, self.names, load, Lookup(load.via), self.owners)  # type: ignore[arg-type]

    def special(self, v: Value, index: Index) -> Item:
        if isinstance(v, Degree):
            text = f"({{1:a}} - {{0:a}}).to({computed(v.dtype)})"
            return self.items(text, *self._segment(), name="degree")
        if not isinstance(v, Reduce):
            raise UnsupportedValue(f"{v.op_name} has no place in a traversal")
        assert self.values is not None
        x = self.values.block(self.values.value(v.x, index), v.dtype)
        if v.op == "sum":
            weighted = self._weighted_sum(x)
            if weighted is not None:
                self.folds[weighted] = v
                return weighted
        x = self.values.restricted(x, [self.present], start_of(v.op))
        fold = self.items(f"{v.op} of members", x, name=v.op, add=[OWNER], drop=[MEMBER], phase=x.phase + 1)
        self.folds[fold] = v
        return fold

    def _segment(self) -> tuple[Item, Item]:
        """Where all members of the owner begin and end, be it cut into tiles or not."""
        if not self.cut:
            return self.begin, self.end
        segments, owner, valid = (
            self.items(self.names.array(Segments(self.via))),
            self.owners.position,
            self.owners.valid,
        )
        assert valid is not None
        first = self.items("tl.load({0} + {1}, mask={2}, other=0)", segments, owner, valid, name="first")
        last = self.items("tl.load({0} + {1} + 1, mask={2}, other=0)", segments, owner, valid, name="last")
        return first, last

    def _weighted_sum(self, x: Item) -> Item | None:
        """The sum of ``exp(logit - maximum)``, or of that times a value, if ``x`` is that: taken in the loop that finds the maximum."""
        maximum = self._maximum_below(x)
        if maximum is not None:
            return self._weighted(maximum)
        if x.text != INFIX["mul"]:
            return None
        for weight, value in (x.args, x.args[::-1]):
            maximum = self._maximum_below(weight)
            if maximum is not None and value.phase < maximum.phase:
                assert self.values is not None
                return self._weighted(maximum, self.values.restricted(value, [self.present], "0"))
        return None

    def _weighted(self, maximum: Item, *value: Item) -> Item:
        logit = maximum.args[0]
        item = self.items(
            "weighted sum of members",
            *value,
            logit,
            name="sum",
            add=[OWNER],
            drop=[MEMBER],
            phase=maximum.phase,
        )
        self.weighted[item] = maximum
        return item

    def _maximum_below(self, weight: Item) -> Item | None:
        """The maximum of the members' logits, if ``weight`` is the exponential of a logit less that."""
        if weight.text != CALLS["exp"] or weight.args[0].text != INFIX["sub"]:
            return None
        logit, fold = weight.args[0].args
        is_maximum = fold in self.folds and self.folds[fold].op == "max" and fold.args[0].args[-1:] == (logit,)
        return fold if is_maximum else None
