"""The oracle: whether what Columba makes of a function means what the function means."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.runtime.eager.lifted import Lifted

from ..check import Failure, Reject, failure_of
from ..graphs import GraphSpec, build
from .case import Case
from .compare import EPSILON, References, mismatch
from .executables import Build, Collector, OnGraph, built_by
from .noise import Noise, Regrouping, WholeVectors
from .session import FILE, Outcome, Session
from .values import DEFAULTS, tensors

NOISE = 4
"""Units in the last place that noisy operations are off by."""

REGROUPINGS = 24
"""Groupings of infinities that are tried."""

REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError)
"""Classes of errors that tell users what they may not do, if they name the line."""

COMPARES = re.compile(r"(?<!soft)(max|min)|[<>]|eq\(|ne\(|==|inf")
"""Sources in which it matters whether two numbers are equal."""

INTERNAL = re.compile(
    r"lives in space one|was converted to|AssertionError|Traceback|object has no attribute|not subscriptable"
)
"""Messages that no user should read."""


@dataclass(frozen=True)
class Refusal:
    """The compiler does not take the program, and says why."""

    message: str

    @property
    def kind(self) -> str:
        """The message without what varies between programs."""
        text = re.sub(rf"{FILE}\w+\.py:\d+(: )?", "", self.message.splitlines()[0])
        text = re.sub(r"\(?lifted along \w+ at |%\d+|\b[hpw]\d+\b|[\d.]+", "#", text)
        return re.sub(r"\[[#, -]*\]|\([^()]*\)", "_", text)[:160]


class EagerRefuses(Reject):
    """Eager code does not run the program either."""


Found = Failure | Refusal | None


def check(case: Case, build_kernels: Build | None = None) -> Found:
    """What is wrong with the compiled program, if anything is.

    Raises:
        Reject: the case says nothing.
    """
    with warnings.catch_warnings(), _one_thread():
        warnings.simplefilter("ignore")
        return _Check(case, build_kernels or Collector()).run()


class _Check:
    def __init__(self, case: Case, build_kernels: Build) -> None:
        self.case, self.build_kernels = case, build_kernels
        self.eager = Session(case)
        self.special = case.special.split()[0] if case.special else ""

    def run(self) -> Found:
        case = self.case
        first = self._references(case.graph, 0)
        try:
            compiled = Session(case, compiled=True)
            got = self._call(compiled, case.graph, 0)
        except Exception as e:
            return _refused(e)
        found = self._compared(first, got, "") or _shared(first.same(), got)
        if found is not None:
            return found
        for phase in case.phases:
            try:
                found = self._phase(phase, compiled, got, first)
            except Reject:
                raise
            except Exception as e:
                found = _prefixed(failure_of(e), phase)
            if found is not None:
                return found
        if first.ill:
            raise Reject(first.ill[0])
        return None

    def _phase(self, phase: str, compiled: Session, first: Outcome, references: References) -> Failure | None:
        case = self.case
        match phase:
            case "again":
                got = self._call(compiled, case.graph, 0)
                return self._repeated(first, got, phase)
            case "changed":
                self._call(compiled, case.graph, 0)
                got = self._call(compiled, case.graph, 1)
                return self._compared(self._references(case.graph, 1), got, phase)
            case "second":
                references = self._references(case.second, 2)
                got = self._call(compiled, case.second, 2)
                return self._compared(references, got, phase)
        got = self._call(compiled, case.graph, 0, grad=False)
        results = Outcome(first.structure, first.leaves, {}, {})
        return self._compared(_without_gradients(references), got, phase) or self._repeated(
            results, got, phase, exact=False
        )

    # -------------------------------------------------------------------------------------------- calls

    def _call(self, compiled: Session, spec: GraphSpec, draw: int, *, grad: bool = True) -> Outcome:
        given = self._tensors(spec, draw, self.case.dtype)
        OnGraph.graph = build(spec)
        with (
            default_dtype(DEFAULTS[self.case.dtype]),
            built_by(self.build_kernels) if self.case.backend in ("plans", "cpp") else contextlib.nullcontext(),
        ):
            got = compiled.call(build(spec), given, grad=grad)
        for name, x in got.inputs.items():
            if not torch.equal(x.detach().nan_to_num(nan=7.25), given[name].nan_to_num(nan=7.25)):
                raise InputChanged(f"the call changed its input {name}")
        return got

    def _tensors(self, spec: GraphSpec, draw: int, dtype: str) -> dict[str, Tensor]:
        """Inputs; in another dtype than the case's, the same numbers."""
        case = self.case
        made = tensors(case.inputs, build(spec), case.dtype, case.seed, case.special, draw=draw)
        wanted = torch.float32 if dtype == "f32" else torch.float64
        return {name: x.to(wanted) for name, x in made.items()}

    def _references(self, spec: GraphSpec, draw: int) -> References:
        case = self.case
        kept: dict[str, Outcome] = {}

        def run(dtype: str, noise: Any = None) -> Outcome:
            with default_dtype(DEFAULTS[dtype]), noise or contextlib.nullcontext():
                return self.eager.call(build(spec), self._tensors(spec, draw, dtype))

        def once(dtype: str) -> Outcome:
            if dtype not in kept:
                kept[dtype] = run(dtype)
            return kept[dtype]

        try:
            exact = once("f64")
            once(case.dtype)
        except Exception as e:
            raise EagerRefuses(f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}") from e
        base = case.dtype if self.special else "f64"

        def others() -> Iterator[Outcome]:
            if "hardtanh" in case.source or "relu6" in case.source:
                yield run(case.dtype, WholeVectors())
            if self.special == "inf":
                yield from (run(case.dtype, Regrouping(seed)) for seed in range(REGROUPINGS))

        return References(
            case.dtype,
            exact,
            lambda: once(case.dtype),
            lambda: once("f32"),
            lambda seed: run(
                base, Noise(NOISE * EPSILON[case.dtype], seed, ties=seed < 3 or bool(COMPARES.search(case.source)))
            ),
            others,
        )

    # -------------------------------------------------------------------------------------------- comparisons

    def _compared(self, want: References, got: Outcome, phase: str) -> Failure | None:
        same = want.same()
        if got.structure != same.structure:
            return Failure("structure", phase, f"{got.structure}, expected {same.structure}")
        for n, (w, g) in enumerate(zip(same.leaves, got.leaves, strict=True)):
            if isinstance(w, Tensor) and (not isinstance(g, Tensor) or g.dtype is not w.dtype):
                return Failure(
                    "type", phase, f"result {n}: {type(g)} {getattr(g, 'dtype', '')}, expected {type(w)} {w.dtype}"
                )
            if not isinstance(w, Tensor) and (w != g or type(w) is not type(g)):
                return Failure("number", phase, f"result {n}: {g!r}, expected {w!r}")
            if isinstance(w, Tensor) and w.requires_grad and not g.requires_grad and got.gradients:
                return Failure("requires_grad", phase, f"result {n} has no gradient")
        found = mismatch(want, got, special=self.special)
        if found is None:
            return None
        name, why = found
        kind = "wrong gradient" if name.startswith("gradient") else "wrong result"
        special = f" ({self.special})" if self.special else ""
        return Failure(kind + special, phase, f"{name}: {why}")

    def _repeated(self, first: Outcome, got: Outcome, phase: str, *, exact: bool = True) -> Failure | None:
        """The same call gives the same bits."""
        for name, x in first.named().items():
            again = got.named()[name]
            if exact and not torch.equal(_bits(x), _bits(again)):
                return Failure("not repeatable", phase, f"{name}:\n{again}\nfirst\n{x}")
        return None


class InputChanged(AssertionError):
    """A call wrote to a tensor that was given to it."""


def _bits(x: Tensor) -> Tensor:
    return x.detach().nan_to_num(nan=7.25, posinf=1e30, neginf=-1e30) if x.is_floating_point() else x


def _without_gradients(r: References) -> References:
    def bare(o: Outcome) -> Outcome:
        return Outcome(o.structure, o.leaves, {}, {})

    return References(
        r.dtype,
        bare(r.exact),
        lambda: bare(r.same()),
        lambda: bare(r.single()),
        lambda n: bare(r.noisy(n)),
        lambda: (bare(o) for o in r.others()),
    )


def _shared(want: Outcome, got: Outcome) -> Failure | None:
    """Results that share memory with inputs, or with each other, where those of eager code do not."""
    if any(isinstance(x, Lifted) for x in want.leaves):
        return None  # eager code copies those in functions that return other tensors as they are
    extra = _sharing(got) - _sharing(want)
    return Failure("shared memory", "", "; ".join(" and ".join(pair) for pair in sorted(extra))) if extra else None


def _sharing(o: Outcome) -> set[tuple[str, str]]:
    named = [(f"result {n}", x) for n, x in enumerate(o.leaves) if isinstance(x, Tensor)] + list(o.inputs.items())
    owned = [(name, x.base if isinstance(x, Lifted) else x) for name, x in named if x.numel()]
    where = [(name, x.untyped_storage().data_ptr()) for name, x in owned]
    return {
        (a, b)
        for n, (a, p) in enumerate(where)
        for b, q in where[n + 1 :]
        if p == q and (a.startswith("result") or b.startswith("result"))
    }


def _refused(error: Exception) -> Failure | Refusal:
    """An error that the user understands is a refusal; what names no line, or is about the compiler's own matters, is a failure."""
    message = str(error)
    if type(error).__module__.startswith("columba") or type(error) in REFUSALS:
        named = re.search(rf"{FILE}\w+\.py:\d+", message)
        if named and not INTERNAL.search(message):
            return Refusal(message)
    return failure_of(error)


def _prefixed(failure: Failure, phase: str) -> Failure:
    return Failure(failure.kind, f"{phase}: {failure.where}", failure.message)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new tensors have this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
