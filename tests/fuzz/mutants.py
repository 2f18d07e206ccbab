# ruff: noqa: E501  fragments of code are as long as they are
"""Faults planted in the compiler one at a time, to see whether and how soon the fuzzer finds them: ``python -m tests.fuzz.mutants``.

Mutation testing (DeMillo, Lipton, Sayward 1978), of the fuzzer instead of a test suite. A mutant is a fragment of a module and
what stands in its place while the module is imported, in a process of its own; no file changes. The search is not guided by
coverage here, whose tracing costs more than it saves on hunts as short as these. Most take a guard away, or
get an axis, an order or an operand wrong: faults that programs must be of a special form to show.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import networkx
import torch

assert networkx
assert torch, "imported once for all mutants"

CRASHED = "the process ended"
MISSED = "missed"


@dataclass(frozen=True)
class Mutant:
    """``before`` occurs once in ``module`` (below ``columba``); ``after`` is the fault. ``build``: only kernels that run can show it."""

    module: str
    before: str
    after: str
    build: bool = False

    @property
    def name(self) -> str:
        return f"columba.{self.module}"

    def planted(self, source: str) -> str:
        """The module's text with the fault.

        Raises:
            ValueError: the fragment does not occur, or occurs more than once.
        """
        if source.count(self.before) != 1:
            raise ValueError(f"{self.name} has {source.count(self.before)} times: {self.before}")
        return source.replace(self.before, self.after)


_LEVEL_1 = "passes.program."
_LEVEL_2 = "passes.plan."

MUTANTS = (
    Mutant(
        f"{_LEVEL_1}reorder_linear",
        "return not inner.shared and node.x.shape == inner.shape and node.axes == (len(inner.shape) - 1,)",
        "return True",
    ),
    Mutant(f"{_LEVEL_1}reorder_linear", "w = b.swap_last(inner.w) if inner.transpose else inner.w", "w = inner.w"),
    Mutant(f"{_LEVEL_1}reorder_linear", "inner.via != node.via or node.via is None or", "node.via is None or"),
    Mutant(f"{_LEVEL_1}reorder_linear", "Linear(a, node.w, None, node.transpose)", "Linear(a, node.w, None, False)"),
    Mutant(f"{_LEVEL_1}merge_reductions", 'in ("neg", "div")', 'in ("neg", "div", "relu")'),
    Mutant(f"{_LEVEL_1}merge_reductions", 'not isinstance(inner, Reduce) or inner.op != "sum"', "not isinstance(inner, Reduce)"),
    Mutant(f"{_LEVEL_1}merge_linears", "return only if isinstance(bias, Lift) and bias.via == linear.via and", "return only if isinstance(bias, Lift) and"),
    Mutant(f"{_LEVEL_1}merge_linears", " and bias.shape == linear.shape[-1:] else None", " else None"),
    Mutant(f"{_LEVEL_1}merge_linears", "v.shared and v.space not in WEIGHT_SPACES", "v.space not in WEIGHT_SPACES"),
    Mutant(f"{_LEVEL_1}merge_linears", " and not _entangles(program, group):", ":"),
    Mutant(f"{_LEVEL_1}aggregate_first", "if not scalar and any(f.shape and f.shape[-1] != 1 for f in scales):", "if False:"),
    Mutant(f"{_LEVEL_1}aggregate_first", 'candidates = value.args[:1] if value.function == "div" else value.args', "candidates = value.args"),
    Mutant(f"{_LEVEL_1}aggregate_first", "(*range(1, heads + 1), 0, heads + 1)", "(*range(heads, 0, -1), 0, heads + 1)"),
    Mutant(f"{_LEVEL_1}aggregate_first", 'Pointwise((product,), "neg") if self.negative else product', "product"),
    Mutant(f"{_LEVEL_1}aggregate_first", "if len(w.shape) > 2 and total.shape[:-1] != w.shape[:-2]:", "if False:"),
    Mutant(f"{_LEVEL_1}canonicalize", "tuple(node.x.order[a] for a in node.order)", "tuple(node.order[a] for a in node.x.order)"),
    Mutant(f"{_LEVEL_1}canonicalize", '"sub": ((1, 0.0),)', '"sub": ((0, 0.0), (1, 0.0))'),
    Mutant(f"{_LEVEL_1}canonicalize", "node.shape == node.x.shape and node.step == 1", "node.shape == node.x.shape or node.step == 1"),
    Mutant(f"{_LEVEL_1}common_subexpressions", "tuple(node.data.items()))", "tuple(node.data))"),
    Mutant(f"{_LEVEL_1}compact_materialization", "all(via == m or factor(via, m) is not None for via in needed)", "any(via == m or factor(via, m) is not None for via in needed)"),
    Mutant(f"{_LEVEL_1}expand_softmax", '_seen(weights.exponentials, views)', '_seen(weights.product, views)'),
    Mutant(f"{_LEVEL_1}factor_sums", "if plain is yes else (condition, slope, one)", "if plain is no else (condition, slope, one)"),
    Mutant(f"{_LEVEL_1}factor_sums", "terms = Pointwise((x, y), node.function)", "terms = Pointwise((y, x), node.function)"),
    Mutant(f"{_LEVEL_1}fold_factors", "and any(n != 1 for n in scale.shape[:-1])", "and False"),
    Mutant(f"{_LEVEL_1}fold_factors", "if value.via == via and value.space not in WEIGHT_SPACES", "if value.space not in WEIGHT_SPACES"),
    Mutant(f"{_LEVEL_1}fold_factors", 'case FeatureReduce(op="sum"):', "case FeatureReduce():"),
    Mutant(f"{_LEVEL_1}fold_factors", "if linear.transpose and columns.shape:", "if False:"),
    Mutant(f"{_LEVEL_1}hoist_factors", "is_finite(scale) or (unread and not may_be_infinite(scale))", "is_finite(scale) or unread"),
    Mutant(f"{_LEVEL_1}hoist_factors", 'if not isinstance(node, Reduce) or node.op != "sum":', 'if not isinstance(node, Reduce) or node.op not in ("sum", "max"):'),
    Mutant(f"{_LEVEL_1}facts", "all(map(is_finite, value.args)) and not _may_divide_by_zero(value)", "all(map(is_finite, value.args))"),
    Mutant(f"{_LEVEL_1}inline_thin_linear", "if 1 in (n, k) else b.swap_last(w)", ""),
    Mutant(f"{_LEVEL_1}inline_thin_linear", "Slice(value, axis, n, n + 1)", "Slice(value, axis, 0, 1)"),
    Mutant(f"{_LEVEL_1}legalize_linear", "    if node.transpose:\n", "    if False:\n"),
    Mutant(f"{_LEVEL_1}legalize_linear", "    if node.shared:\n", "    if node.shared and len(product.shape) > 3:\n"),
    Mutant(f"{_LEVEL_1}merge_pads", "p.start != end or p.step != 1", "p.start < end or p.step != 1"),
    Mutant(f"{_LEVEL_1}merge_pads", "p.start != end or p.step != 1", "p.start != end"),
    Mutant(f"{_LEVEL_1}merge_pads", "pads.sort(key=lambda p: p.start)", "pads.sort(key=lambda p: -p.start)"),
    Mutant(f"{_LEVEL_1}pull_negations", 'getattr(value, "op", "sum") == "sum"', "True"),
    Mutant(f"{_LEVEL_1}pull_negations", 'return Pointwise((y, positive), "sub")', 'return Pointwise((positive, y), "sub")'),
    Mutant(f"{_LEVEL_1}reassociate_products", 'not isinstance(inner, Pointwise) or inner.function != "mul":', "not isinstance(inner, Pointwise) or len(inner.args) != 2:"),
    Mutant(f"{_LEVEL_1}reuse_weighted_sums", " or weight.shape != dot.shape:", ":"),
    Mutant(f"{_LEVEL_1}reuse_weighted_sums", "p.shape == kept and self._same_elements", "p.shape != () and self._same_elements"),
    Mutant(f"{_LEVEL_1}reuse_weighted_sums", "if self.number[u] != self.number[v] or known.shape", "if known.shape"),
    Mutant(f"{_LEVEL_1}sink_lifts", "value.with_children([move(c) for c in value.children])", "value.with_children([move(c) for c in value.children[::-1]])"),
    Mutant(f"{_LEVEL_1}split_linear", "len(node.w.shape) - (1 if node.transpose else 2)", "len(node.w.shape) - 2"),
    Mutant(f"{_LEVEL_1}split_linear", " or joined.axis != len(joined.shape) - 1:", ":"),
    Mutant(f"{_LEVEL_2}merging", "            if node.via is not None:\n                possible = False", "            if False:\n                possible = False"),
    Mutant(f"{_LEVEL_2}fuse_traversals", "if along is None or kernel.via == along:", "if True:"),
    Mutant(f"{_LEVEL_2}fuse_traversals", "if frame.schedule.split and not _can_split(stores, frame):", "if False:", build=True),
    Mutant("ir.plan.dataflow", "return any(first in needs[middle] for middle in needs[second])", "return False"),
    Mutant(f"{_LEVEL_2}merging", "read = {*outputs, *(b for", "read = {*outputs[:1], *(b for"),
    Mutant(f"{_LEVEL_2}fuse_epilogues", "after.via is not None or after.owner is not product_of(gemm).space", "after.via is not None"),
    Mutant(f"{_LEVEL_2}fuse_epilogues", " or passes_between(needs, gemm.name, after.name):", ":"),
    Mutant("gradient.partition", "found: dict[Value, None] = {v: None for v in wanted if v not in late}", "found: dict[Value, None] = {}"),
    Mutant("gradient.partition", "forward_results.index(v)", "n % len(forward_results)"),
    Mutant("gradient.saving", "if operand in number:", "if operand in number and isinstance(operand, Linear):"),
    Mutant("gradient.differentiate", "Linear(g, op.w, op.via, not op.transpose)", "Linear(g, op.w, op.via, op.transpose)"),
    Mutant("gradient.differentiate", 'share = b.pointwise("div", g, b.pointwise("maximum", ties, 1.0))', "share = g"),
    Mutant("gradient.differentiate", "sorted(range(len(op.order)), key=lambda a: op.order[a])", "op.order"),
    Mutant("gradient.differentiate", "(Linear(op.y, g, op.via, transpose=True), Linear(op.x, g, op.via, transpose=False))", "(Linear(op.y, g, op.via, transpose=True), None)"),
    Mutant("lowering.kernels", "for view in reversed(views):", "for view in views:"),
    Mutant("lowering.kernels", "return Load(buffer, via, via.fine) if rest is None else Lift(Load(buffer, rest, along.coarse), along)", "return Load(buffer, via, via.fine) if rest is None else Lift(Load(buffer, None, buffer.type.space), along)"),
    Mutant("codegen.cpp.rows", "inner = f\"({i} - {v.start})\" if v.start else i", "inner = i", build=True),
    Mutant("codegen.cpp.rows", "if v.type.size not in (1, size):", "if v.type.size > size:", build=True),
    Mutant("codegen.cpp.rows", "inner = dict(zip(v.order, index, strict=True))", "inner = dict(zip(sorted(v.order, key=v.order.__getitem__), index, strict=True))", build=True),
    Mutant("codegen.cpp.reductions", 'f"if (begin == end) {each} {name}[i] = 0;"', '""', build=True),
    Mutant("codegen.cpp.reductions", 'return [*lines, f"if (begin == end) {name} = 0;"]', "return lines", build=True),
    Mutant("codegen.cpp.slots", "return self.folds_in(v) + 1", "return self.folds_in(v)", build=True),
    Mutant("codegen.cpp.slots", "later = any(self._read_in(u) > self.of[v] for u in readers)", "later = False", build=True),
    Mutant("codegen.cpp.places", "        if self._is_stored_along(order):", "        if True:", build=True),
    Mutant("codegen.cpp.places", "Order(self.walk, order)", "Order(self.walk)", build=True),
    Mutant("runtime.graphs.index_arrays", "places = self.sorts.invert(self.index(Order(within)))", "places = self.index(Order(within))", build=True),
    Mutant("codegen.cpp.places", "along = self.walk if in_walk and not self.sorted else None", "along = self.walk if in_walk else None", build=True),
    Mutant("codegen.cpp.gemm", '"transposed": "true" if product.transpose else "false"', '"transposed": "false"', build=True),
    Mutant("codegen.cpp.gemm", '"matrices": 1 if kernel.shared else lead', '"matrices": 1', build=True),
    Mutant("codegen.cpp.gemm", 'f" + {start}" if start else ""', '""', build=True),
)  # fmt: skip


class _Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module with a fault in it."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.path: str | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.mutant.name:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert found is not None
        assert found.origin is not None
        self.path = found.origin
        return importlib.util.spec_from_loader(fullname, self, origin=found.origin)

    def exec_module(self, module: ModuleType) -> None:
        assert self.path is not None
        module.__file__ = self.path
        source = self.mutant.planted(Path(self.path).read_text())
        exec(compile(source, self.path, "exec"), module.__dict__)


def hunt(mutant: Mutant, programs: int, build: int, seed: int) -> str:
    """Plants a mutant in this process, where nothing of the compiler may have been imported, and looks for it."""
    sys.meta_path.insert(0, _Planter(mutant))
    from .campaign import Campaign

    with tempfile.TemporaryDirectory(prefix="columba-mutant-") as folder:
        os.environ["COLUMBA_CACHE_DIR"] = folder
        report = Campaign(programs, seed, build=build, traced=0, shrink_seconds=0.0, stop_at_failure=True).run()
    if mutant.name not in sys.modules:
        return "was never imported"
    if not report.failures:
        return MISSED
    return f"after {report.programs} programs: {report.failures[0].failure.signature}"


def source_of(mutant: Mutant) -> str:
    """The text of a mutant's module as it is."""
    spec = importlib.util.find_spec(mutant.name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


def main() -> int:
    """Hunts all mutants, or those whose module or text has a word in it; exits with 1 if one is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutants", description=__doc__)
    parser.add_argument(
        "word", nargs="*", default=[""], help="only mutants with this in their module's name or their text"
    )
    parser.add_argument("--programs", type=int, default=3000, help="where the hunt for a mutant ends")
    parser.add_argument(
        "--build", type=int, default=96, help="how many programs are built and run, if only that shows it"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wanted = [n for n, m in enumerate(MUTANTS) if any(w in f"{m.module} {m.before} {m.after}" for w in args.word)]
    missed = 0
    for n in wanted:
        start = time.monotonic()
        verdict = _in_a_process(MUTANTS[n], args)
        missed += verdict == MISSED
        mutant = MUTANTS[n]
        title = f"{n:3} {mutant.module.removeprefix('passes.')}: {mutant.before.strip().splitlines()[0]}"
        print(f"{title[:90]:90}  {verdict} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} found")
    return 1 if missed else 0


def _in_a_process(mutant: Mutant, args: argparse.Namespace) -> str:
    """What :func:`hunt` finds in a copy of this process, which has not imported the compiler."""
    context = multiprocessing.get_context("fork")
    found, say = context.Pipe(duplex=False)

    def work() -> None:
        say.send(hunt(mutant, args.programs, args.build if mutant.build else 0, args.seed))

    process = context.Process(target=work)
    process.start()
    say.close()
    try:
        return str(found.recv())
    except EOFError:
        process.join()
        return f"{CRASHED} with code {process.exitcode}"


if __name__ == "__main__":
    raise SystemExit(main())
