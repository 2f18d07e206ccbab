"""The pass manager: runs passes, and owns timing, verification and dumping, so that no pass contains any of it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from columba.ir.plan.plan import Plan
from columba.ir.plan.verify import verify as verify_plan
from columba.ir.program.program import Program
from columba.ir.program.verify import verify as verify_program

IR = TypeVar("IR", Program, Plan)


@dataclass(frozen=True)
class Pass(Generic[IR]):
    """A pure function from programs to programs (or plans to plans). Its dataclass fields are its options.

    A pass that changes nothing returns the object it was given. The name is the class name in snake case; the spelling on
    the command line, ``name`` or ``name{option=value,...}``, is derived from it and the options.
    """

    name: ClassVar[str]
    registry: ClassVar[dict[str, type[Pass[Any]]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        Pass.registry[cls.name] = cls

    def run(self, ir: IR) -> IR:
        raise NotImplementedError(f"pass {self.name} has no run()")

    def run_pair(self, forward: IR, backward: IR, saved: Sequence[tuple[int, int]]) -> tuple[IR, IR]:
        """What it does, once it has run on each, to the two directions of one program together: nothing, if it does not say so.

        ``saved`` are values that nobody else sees: their positions among what ``forward`` gives and among what ``backward`` takes.
        """
        return forward, backward

    def __str__(self) -> str:
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        ]
        return self.name + (f"{{{','.join(changed)}}}" if changed else "")


class Passes(tuple[Pass[IR], ...]):
    """Passes in the order in which they run.

    >>> print(parse_passes("canonicalize,sink_lifts").after("canonicalize", *parse_passes("merge_pads")).configured("sink_lifts", small=8))
    canonicalize,merge_pads,sink_lifts{small=8}
    """

    __slots__ = ()

    def without(self, *passes: Pass[IR]) -> Passes[IR]:
        """All but ``passes``, as they are configured."""
        return Passes(p for p in self if p not in passes)

    def after(self, name: str, *passes: Pass[IR]) -> Passes[IR]:
        """With ``passes`` behind each pass called ``name``."""
        found: list[Any] = []
        for p in self:
            found += (p, *passes) if p.name == name else (p,)
        return Passes(found)

    def configured(self, name: str, **options: Any) -> Passes[IR]:
        """With these options set of all passes called ``name``."""
        return Passes(dataclasses.replace(p, **options) if p.name == name else p for p in self)

    def plus(self, *passes: Pass[IR]) -> Passes[IR]:
        """With ``passes`` at the end."""
        found: list[Any] = [*self]
        return Passes([*found, *passes])

    def __str__(self) -> str:
        """The spelling on the command line."""
        return ",".join(map(str, self))


@functools.cache
def parse_passes(text: str) -> Passes[Any]:
    """Passes from their command-line spelling, separated by commas.

    >>> [str(p) for p in parse_passes("canonicalize,common_subexpressions")]
    ['canonicalize', 'common_subexpressions']
    """
    discover()
    found = []
    for match in re.finditer(r"\s*([a-z_]+)\s*(?:\{([^}]*)\})?\s*(?:,|$)", text):
        name, options = match.groups()
        if name not in Pass.registry:
            raise ValueError(f"unknown pass {name!r}; there are {', '.join(sorted(Pass.registry))}")
        pairs = (part.split("=", 1) for part in (options or "").split(",") if part.strip())
        found.append(Pass.registry[name](**{key.strip(): ast.literal_eval(value) for key, value in pairs}))
    return Passes(found)


@functools.cache
def discover() -> dict[str, type[Pass[Any]]]:
    """All passes of ``columba.passes``, by name."""
    import columba.passes as package

    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    return Pass.registry


@dataclass
class Pipeline:
    """Runs passes in order.

    ``verify`` checks the invariants after every pass; ``on_pass(pass, before, after)`` is called after each one, for dumps.
    ``seconds`` collects the time of each pass by name.
    """

    passes: Iterable[Pass[Any]]
    verify: bool = False
    on_pass: Callable[[Pass[Any], Any, Any], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, ir: IR) -> IR:
        for p in self.passes:
            start = time.perf_counter()
            after = p.run(ir)
            self.seconds[p.name] = self.seconds.get(p.name, 0.0) + time.perf_counter() - start
            if self.verify:
                self._verify(p, after)
            if self.on_pass is not None:
                self.on_pass(p, ir, after)
            ir = after
        return ir

    def _verify(self, p: Pass[Any], ir: Program | Plan) -> None:
        try:
            verify_program(ir) if isinstance(ir, Program) else verify_plan(ir)
        except ValueError as e:
            raise type(e)(f"after pass {p.name}: {e}") from e
