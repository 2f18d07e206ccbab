"""Mixed precision: what takes few numbers a row is computed and kept in 32 bits, where rows have 16."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.pointwise import POINTWISE
from columba.ir.program import build as b
from columba.ir.program.ops import (
    VIEWS,
    Cast,
    Constant,
    Degree,
    FeatureReduce,
    Input,
    Lift,
    Linear,
    OuterReduce,
    Pointwise,
    Reduce,
    Softmax,
    Uniform,
    Value,
)
from columba.ir.program.program import Program
from columba.ir.spaces import WEIGHT_SPACES
from columba.ir.types import DType
from columba.passes.pipeline import Pass
from columba.passes.program.rewriting import Rewriter


@dataclass(frozen=True)
class WidenSmallRows(Pass[Program]):
    """``s: [4] bf16 = sum(z * a)  -->  s = loose(sum(z32 * a32): [4] f32)``, and so on with what is computed of ``s``.

    A score decides more than its own last bits: on which side of a kink of a leaky ReLU an edge lies, which edge is the largest, and by
    its exponential what a sum of thousands is multiplied by. Scores have a number a head, so that 32 bits cost two bytes more for each,
    where rows of features take two for every feature. So what sums over features (at most ``small`` numbers a row remain), what counts
    members, and what is computed of these without growing is in 32 bits, until wide rows are multiplied with it. Operands of the sums are
    not rounded to 16 bits in between, and a matrix product that they read in their own space gives them its sums of 32 bits before it
    stores them in 16. Sums whose result is read in 32 bits alone are not rounded in between either, and rows of 16 bits that are lifted
    are taken to 32 where they arrive. It must not fire on inputs and
    results, whose types are the user's, on casts, which round because somebody said so, or on programs without numbers of 16 bits.
    """

    small: int = 16

    def run(self, program: Program) -> Program:
        if not any(v.dtype.is_half for v in program.body):
            return program
        return _Widening(program, self.small).run()


class _Widening:
    """``wide[v]`` is, of a rewritten value of 16 bits that is computed in 32, the value in 32."""

    def __init__(self, program: Program, small: int) -> None:
        self.small = small
        self.rewriter = Rewriter(program)
        self.wide: dict[Value, Value] = {}

    def run(self) -> Program:
        return self.rewriter.run(self.rule)  # type: ignore[arg-type]

    def rule(self, node: Value) -> Value:
        if isinstance(node, Cast):
            return self._cast(node)
        if isinstance(node, Lift) and node.x.dtype is DType.F32:
            return _lifted(node)
        if isinstance(node, Pointwise) and node.dtype is DType.BOOL:
            return self._compared(node)
        if not node.dtype.is_half or isinstance(node, (Input, Constant, Uniform, Softmax, OuterReduce)):
            return node
        if isinstance(node, Linear) and self._feeds_scores(node):
            x, w = b.cast(node.x, DType.F32), b.cast(node.w, DType.F32)
            return self._loose(node, Linear(x, w, node.via, node.transpose))
        return self._loose(node, self._in_32_bits(node)) if self._is_score(node) else node

    def _cast(self, node: Cast) -> Value:
        if node.to is DType.F32 and node.x.dtype.is_half:
            if node.x in self.wide and node.x.type.size <= self.small:
                return self.wide[node.x]
            if node.space in WEIGHT_SPACES and (_is_cheap(node.x) or isinstance(node.x, FeatureReduce)):
                return self.up(node.x, deep=True)
            return self._unrounded_sum(node.x) or node
        if node.loose and node.x.dtype is DType.F32:
            self.wide[node] = node.x
        return node

    def _compared(self, node: Pointwise) -> Value:
        """What is compared with a score is so in 32 bits."""
        if not any(a in self.wide and a.type.size <= self.small for a in node.args):
            return node
        return Pointwise(tuple(self.up(a) for a in node.args), node.function, node.scalars)

    def _loose(self, node: Value, wide: Value) -> Value:
        made = b.loosely(wide, node.dtype)
        self.wide[made] = wide
        return made

    def _is_score(self, node: Value) -> bool:
        if node.type.size > self.small or node.space in WEIGHT_SPACES:
            return False
        match node:
            case FeatureReduce():
                return node.type.size < node.x.type.size
            case Linear():
                return node.shape[-1] == 1 or _is_computed(node.w)
            case Degree():
                return True
        return any(c in self.wide and node.type.size <= c.type.size for c in node.children if isinstance(c, Value))

    def _in_32_bits(self, node: Value) -> Value:
        if isinstance(node, Degree):
            return Degree(node.via, DType.F32)
        deep = isinstance(node, Linear) or (isinstance(node, FeatureReduce) and node.op == "sum")
        return self._with_wide_operands(node, deep=deep)

    def _with_wide_operands(self, node: Value, *, deep: bool) -> Value:
        operands = [c for c in node.children if isinstance(c, Value)]
        return node.with_children([self.up(c, deep=deep) if c.dtype.is_float else c for c in operands])

    def up(self, v: Value, *, deep: bool = False) -> Value:
        """A value of 16 bits in 32; ``deep``: what cheap functions made of wide rows is computed so from the start."""
        if not v.dtype.is_half:
            return v
        if v in self.wide and (deep or v.type.size <= self.small):
            return self.wide[v]
        if isinstance(v, Constant):
            return Constant(v.space, v.value, DType.F32)
        if deep and (_is_cheap(v) or (isinstance(v, FeatureReduce) and v.space in WEIGHT_SPACES)):
            return self._with_wide_operands(v, deep=True)
        if deep and isinstance(v, Lift) and v.x.space in WEIGHT_SPACES and not isinstance(v.x, Input):
            return b.lift(self.up(v.x, deep=True), v.via)
        return self._unrounded_sum(v) or b.cast(v, DType.F32)

    def _feeds_scores(self, node: Linear) -> bool:
        """Whether a product of wide rows is read by a dot product in its own space, directly or through cheap functions."""
        if node.space in WEIGHT_SPACES:
            return False
        stack: list[Value] = [node]
        while stack:
            for reader in self.rewriter.readers(stack.pop()):
                if isinstance(reader, FeatureReduce) and reader.op == "sum" and reader.type.size <= self.small:
                    return True
                if isinstance(reader, Cast) or (isinstance(reader, Value) and _is_cheap(reader)):
                    stack.append(reader)  # type: ignore[arg-type]
        return False

    def _unrounded_sum(self, x: Value) -> Value | None:
        """A sum of 16 bits that is read in 32 alone, as one of 32."""
        if isinstance(x, Reduce) and x.op == "sum" and self.rewriter.once(x):
            return Reduce(self.up(x.x), x.via, x.op)
        return None


def _lifted(node: Lift) -> Value:
    """Rows of 16 bits are lifted before they are taken to 32: in memory they have 16."""
    views: list[Value] = []
    x = node.x
    while isinstance(x, VIEWS):
        views.append(x)
        x = x.x
    if not isinstance(x, Cast) or not x.x.dtype.is_half or x.x.space in WEIGHT_SPACES or isinstance(x.x, Constant):
        return node
    lifted = b.cast(b.lift(x.x, node.via), DType.F32)
    for view in reversed(views):
        lifted = view.with_children([lifted])
    return lifted


def _is_computed(weight: Value) -> bool:
    """Whether a weight is no parameter as it is: a vector that was multiplied into one, say."""
    while isinstance(weight, (Cast, *VIEWS)):
        weight = weight.x
    return not isinstance(weight, Input)


def _is_cheap(v: Value) -> bool:
    return isinstance(v, VIEWS) or (isinstance(v, Pointwise) and POINTWISE[v.function].flops <= 1)
