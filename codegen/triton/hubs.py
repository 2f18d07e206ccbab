"""Triton for hubs: owners of so many members that one program would go over them for long.

Their members are cut into tiles (:class:`columba.ir.indices.Hubs`). For each loop over members there is a function that takes tiles: it
puts together what the tiles of its hub found in the loops before, goes over its own members, and leaves what it finds as a part. A
last one, which the first tile of each hub does, puts together all parts and stores what is the owner's. Parts are combined in the order
of tiles, by the same code everywhere, so that results are the same in every run, and what is stored is what the members were given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from columba.codegen.triton.functions import Function, write_statements
from columba.codegen.triton.items import Axis, BlockShape, Item, Text, Writer, below, count_readers
from columba.codegen.triton.launches import GridSize, Launch, Loop, Variant, Workspace
from columba.codegen.triton.levels import OWNER
from columba.codegen.triton.loops import NAN, write_loop
from columba.codegen.triton.owners import Owners
from columba.codegen.triton.parts import Parts
from columba.codegen.triton.scalars import HALVES, computed
from columba.codegen.triton.schedule import MemberSchedule
from columba.codegen.triton.values import fold_of, start_of
from columba.ir.indices import Hubs
from columba.ir.plan.kernels import Traversal
from columba.ir.types import DType


class HubTiles(Owners):
    """The functions of a traversal that take the tiles of hubs."""

    def __init__(self, kernel: Traversal, name: str, hubs: Hubs, schedule: MemberSchedule, parts: Parts) -> None:
        super().__init__(kernel, hubs, None, parts)
        self.name = name
        self.hubs = hubs
        self.schedule = schedule
        self.workspaces = {f: self._workspace(n, f) for n, f in enumerate(self.level.folds)}
        for workspace in self.workspaces.values():
            self.names.workspace(workspace)  # so that variables are called otherwise

    def _workspace(self, n: int, fold: Item) -> Workspace:
        dtype = self.level.folds[fold].dtype
        size = math.prod(int(a.block) for a in _features(fold))
        return Workspace(
            f"{self.kernel.name}_hub_{fold.name}_{n}",
            GridSize(self.hubs),
            size,
            DType.F32 if dtype in HALVES else dtype,
        )

    def functions(self) -> list[Function]:
        """One for each loop, and one for what is stored for owners."""
        loops = [self._loop(phase) for phase in range(self.phases)]
        return [*loops, self._last()] if self.own else loops

    def _loop(self, phase: int) -> Function:
        level = self.level
        stores = [s for s in self.of_members if s.phase == phase]
        found = [f for f in level.folds if f.phase == phase + 1]
        writer = self._writer()
        times = self._combine(writer, [*(a for f in found for a in f.args), *(a for s in stores for a in s.args)])
        begin, end = writer.named(level.begin), writer.named(level.end)
        writer.lines.append(f"longest = longest_of({begin}, {end}, OWNERS)")
        for a in write_loop(writer, level, phase, stores):
            writer.lines += a.finish_part()
            place = self._place(writer, a.item, writer.read(level.outer.position))
            writer.lines.append(f"tl.store({place}, {a.name}, mask={writer.read(_valid(level.outer.valid))})")
        made = [self.workspaces[f] for f in found]
        after = "" if not phase else f" after loop {phase}"
        about = f"The members of hubs{after}, tile by tile."
        loops = (Loop("tiles", self.hubs, "MEMBERS", times), Loop("tile", self.hubs, "MEMBERS"))
        return self._function(f"{self.name}_of_hubs_{phase + 1}", writer, made, about, loops)

    def _last(self) -> Function:
        writer = self._writer()
        loops = (Loop("tiles", self.hubs, "MEMBERS", self._combine(writer, self.own, last=True)),)
        write_statements(writer, self.own)
        about = "Puts together what the tiles of each hub have made."
        return self._function(f"{self.name}_of_hubs", writer, [], about, loops)

    def _writer(self) -> Writer:
        layout = BlockShape()
        layout.see(below([*self.roots, self.level.present]))
        return Writer(layout, {*self.names.arguments, "start", "longest"}, count_readers(self.roots))

    def _function(
        self, name: str, writer: Writer, made: Sequence[Workspace], about: str, loops: tuple[Loop, ...]
    ) -> Function:
        words = set(re.findall(r"\w+", "\n".join(writer.lines)))
        arguments = tuple((name, a) for name, a in self.names.arguments.items() if name in words)
        schedule = self.schedule
        constants = (("OWNERS", schedule.owners), ("MEMBERS", schedule.members))
        variant = Variant((GridSize(self.hubs, schedule.owners),), constants, schedule.warps)
        launch = Launch(name, arguments, (variant,), workspaces=tuple(made), loops=loops)
        return Function(name, "rows.py.jinja", launch, {"body": writer.lines}, about)

    # -------------------------------------------------------------------------------------------- parts

    def _place(self, writer: Writer, fold: Item, tile: str) -> str:
        """Where the part of a tile is that belongs to a fold."""
        workspace, stride, terms = self.workspaces[fold], 1, list[str]()
        for axis in reversed(_features(fold)):
            lane = writer.read(self.values.lanes(axis))
            terms.insert(0, f"{Text(lane):a} * {stride}" if stride != 1 else f"{Text(lane):a}")
            stride *= int(axis.block)
        size = f" * {workspace.size}" if workspace.size != 1 else ""
        return " + ".join([self.names.workspace(workspace), f"{Text(tile):a}{size}", *terms])

    def _combine(self, writer: Writer, roots: Iterable[Item], *, last: bool = False) -> int:
        """Makes the reductions known that ``roots`` need, of all members of the tile's hub; ``last``: in its first tile alone.

        How many loops over the hub's tiles that takes.
        """
        folds = self._needed(roots)
        if not folds:
            return 0
        level = self.level
        first, after = writer.named(level.first), writer.named(level.after)
        if last:
            after = Text(writer.fresh("after"))
            writer.lines.append(
                f"{after} = tl.where({writer.read(_valid(level.owners.stored))}, {writer.known[level.after]}, {first})"
            )
        tiles = writer.fresh("tiles")
        writer.lines.append(f"{tiles} = longest_of({first}, {after}, OWNERS)")
        plain = [f for f in folds if f not in level.weighted]
        weighted = [f for f in folds if f in level.weighted]
        names = {
            f: writer.fresh({"sum": "total", "max": "largest", "min": "smallest"}[level.folds[f].op]) for f in folds
        }
        for f in folds:
            writer.write(map(self.values.lanes, _features(f)))
            r = level.folds[f]
            shape = writer.layout.shape([OWNER, *_features(f)]).replace("OWNERS, 1", "OWNERS, MEMBERS", 1)
            writer.lines.append(f"{names[f]} = tl.full({shape}, {start_of(r.op)}, {computed(r.dtype)})")
        self._loop_over_parts(writer, plain, names, first, after, tiles, "what they have found")
        for f in plain:
            writer.lines.append(f"{names[f]} = {fold_of(level.folds[f].op)}({names[f]}, 1)")
            writer.known[f] = Text(names[f])
        if weighted:
            self._loop_over_parts(writer, weighted, names, first, after, tiles, "sums, relative to each one's maximum")
        for f in weighted:
            writer.lines.append(f"{names[f]} = sum_along({names[f]}, 1)")
            writer.known[f] = Text(names[f])
        return 2 if weighted else 1

    def _loop_over_parts(
        self,
        writer: Writer,
        folds: Sequence[Item],
        names: dict[Item, str],
        first: str,
        after: str,
        tiles: str,
        what: str,
    ) -> None:
        inner = writer.inner()
        part, counted = inner.fresh("part"), inner.fresh("counted")
        at = f"tl.arange(0, MEMBERS){writer.layout.at(1)}"
        lines = [f"{part} = {Text(first):a} + start + {at}", f"{counted} = {part} < {Text(after):a}"]
        weights: dict[Item, str] = {}
        for f in folds:
            op = self.level.folds[f].op
            value = self._part(inner, f, part, counted, start_of(op))
            maximum = self.level.weighted.get(f)
            if maximum is not None:
                if maximum not in weights:
                    weights[maximum] = inner.fresh("weight")
                    largest = self._part(inner, maximum, part, counted, start_of("max"))
                    lines.append(f"{weights[maximum]} = tl.exp({largest} - {names[maximum]})")
                value = f"{value} * {weights[maximum]}"
            if op == "sum":
                lines.append(f"{names[f]} += {value}")
            else:
                lines.append(f"{names[f]} = tl.{op}imum({names[f]}, {value}, {NAN})")
        writer.lines.append(f"# Over the tiles of the hub, MEMBERS at a time: {what}.")
        writer.lines += [
            f"for start in range(0, {tiles}, MEMBERS):",
            *(f"    {line}" for line in [*inner.lines, *lines]),
        ]

    def _part(self, inner: Writer, fold: Item, part: str, counted: str, otherwise: str) -> str:
        place = self._place(inner, fold, f"{part}.to(tl.int64)")
        return f"tl.load({place}, mask={counted}, other={otherwise})"

    def _needed(self, roots: Iterable[Item]) -> list[Item]:
        """The reductions below ``roots``, not those below them, and the maxima of weighted sums; in the order of loops."""
        found: set[Item] = set()
        seen: set[Item] = set()
        stack = list(roots)
        while stack:
            item = stack.pop()
            if item in seen:
                continue
            seen.add(item)
            if item not in self.level.folds:
                stack += item.args
                continue
            found.add(item)
            if item in self.level.weighted:
                stack.append(self.level.weighted[item])
        return [f for f in self.level.folds if f in found]


def _features(fold: Item) -> list[Axis]:
    """The axes of what a reduction is of, beside its owner."""
    return sorted((a for a in fold.axes if a != OWNER), key=lambda a: a.dim)


def _valid(mask: Item | None) -> Item:
    assert mask is not None
    return mask
