"""What of the compiler ran: lines of its passes and its code generator, by ``sys.settrace``, and features of what came out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

from columba.ir.program.ops import Linear, Pointwise, Reduce, Value
from columba.ir.program.program import Program
from columba.passes.pipeline import discover

T = TypeVar("T")
Line = tuple[str, int]

WATCHED = ("passes/", "autodiff.py", "partition.py", "lowering.py", "distinct.py", "codegen/cpp/")


class Coverage:
    """Lines that have run so far, of the modules in :data:`WATCHED`."""

    def __init__(self) -> None:
        self.lines: set[Line] = set()
        self.new = 0
        self.files: dict[str, bool] = {}

    def run(self, function: Callable[[], T]) -> T:
        """``function()``, traced; afterwards ``new`` says how many lines it was the first to reach."""
        before, outer = len(self.lines), sys.gettrace()
        sys.settrace(self._call)
        try:
            return function()
        finally:
            sys.settrace(outer)
            self.new = len(self.lines) - before

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        watched = self.files.get(name)
        if watched is None:
            watched = self.files[name] = is_watched(name)
        if not watched:
            return None
        self.lines.add((name, frame.f_lineno))
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    def report(self) -> list[tuple[str, int, int, int, int]]:
        """For each watched module: its name, rules that ran, rules there are, lines that ran, lines there are.

        A rule is a function.
        """
        rows = []
        for path in modules():
            reached = {n for name, n in self.lines if name == str(path)}
            rules = functions(path)
            ran = [lines & reached for lines in rules.values()]
            every = frozenset().union(*rules.values())
            rows.append((short(path), sum(map(bool, ran)), len(rules), len(every & reached), len(every)))
        return rows


def short(path: Path) -> str:
    """A module's path below the package."""
    return "/".join(path.parts[-3:] if "passes" in path.parts else path.parts[-2:])


def is_watched(filename: str) -> bool:
    """Whether a file is one of :func:`modules`."""
    return filename in {str(path) for path in modules()}


@functools.cache
def modules() -> tuple[Path, ...]:
    """The watched modules."""
    discover()
    found = []
    for module in list(sys.modules.values()):
        name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
        place = name.removeprefix("columba.").replace(".", "/") + ("/" if hasattr(module, "__path__") else ".py")
        if name.startswith("columba.") and file and any(place.startswith(w) for w in WATCHED):
            found.append(Path(file))
    return tuple(sorted(found))


@functools.cache
def functions(path: Path) -> dict[str, frozenset[int]]:
    """The functions of a module and the lines of each, without their nested functions'."""
    found: dict[str, frozenset[int]] = {}
    stack: list[tuple[CodeType, str]] = [(compile(path.read_text(), str(path), "exec"), "")]
    while stack:
        code, prefix = stack.pop()
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                stack.append((inner, f"{prefix}{inner.co_name}."))
        if prefix and code.co_flags & 2:  # CO_NEWLOCALS: a function, not a class body
            found[f"{prefix}{code.co_firstlineno}"] = frozenset(n for _, _, n in code.co_lines() if n)
    return found


def features(before: Program, after: Program, changed: Iterable[str]) -> set[str]:
    """What is notable about a transformed program: passes that changed it, pairs of them, and who feeds whom."""
    passes = list(changed)
    found = {f"pass {name}" for name in passes} | {f"passes {a} {b}" for a, b in zip(passes, passes[1:], strict=False)}
    for program in (before, after):
        for v in program.body:
            found.add(_kind(v))
            found.update(f"{_kind(c)} > {_name(v)}" for c in v.children if isinstance(c, Value))
    return found


def _name(v: Value) -> str:
    if isinstance(v, Pointwise):
        return v.function
    return f"{v.op_name}.{v.op}" if isinstance(v, Reduce) else v.op_name


def _kind(v: Value) -> str:
    """An operation with what decides how it is compiled: its map or space."""
    via = getattr(v, "via", None)
    shared = f" {'shared' if v.shared else 'heads'} {v.transpose}" if isinstance(v, Linear) else ""
    return f"{_name(v)} {via or v.space}{shared}"
