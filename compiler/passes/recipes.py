"""The standard pipelines, and recipes: which passes run at either level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from columba.ir.plan.plan import Plan
from columba.ir.program.program import Program
from columba.passes.pipeline import Passes, Pipeline
from columba.passes.plan.fuse_epilogues import FuseEpilogues
from columba.passes.plan.fuse_traversals import FuseTraversals
from columba.passes.plan.group_kernels import GroupKernels
from columba.passes.plan.order_kernels import OrderKernels
from columba.passes.plan.round_stored import RoundStored
from columba.passes.plan.sort_rows import SortRows
from columba.passes.program.aggregate_first import AggregateFirst
from columba.passes.program.canonicalize import Canonicalize
from columba.passes.program.common_subexpressions import CommonSubexpressions
from columba.passes.program.compact_materialization import CompactMaterialization
from columba.passes.program.expand_softmax import ExpandSoftmax
from columba.passes.program.factor_sums import FactorSums
from columba.passes.program.fold_factors import FoldFactors
from columba.passes.program.hoist_factors import HoistFactors
from columba.passes.program.inline_thin_linear import InlineThinLinear
from columba.passes.program.legalize_linear import LegalizeLinear
from columba.passes.program.merge_linears import MergeLinears
from columba.passes.program.merge_pads import MergePads
from columba.passes.program.merge_reductions import MergeReductions
from columba.passes.program.pull_negations import PullNegations
from columba.passes.program.reassociate_products import ReassociateProducts
from columba.passes.program.reorder_linear import ReorderLinear
from columba.passes.program.reuse_weighted_sums import ReuseWeightedSums
from columba.passes.program.sink_lifts import SinkLifts
from columba.passes.program.split_linear import SplitLinear
from columba.passes.program.unite_masks import UniteMasks
from columba.passes.program.widen_small_rows import WidenSmallRows

LEVEL_1 = Passes[Program](
    [
        Canonicalize(),
        LegalizeLinear(),
        SplitLinear(),
        CommonSubexpressions(),
        MergeReductions(),
        ReorderLinear(),
        ReassociateProducts(),
        FoldFactors(),
        MergeLinears(wide=False),
        MergePads(),
        CompactMaterialization(),
        AggregateFirst(edges_only=True),
        AggregateFirst(end="src", edges_only=True),
        HoistFactors(),
        Canonicalize(),
        CommonSubexpressions(),
        PullNegations(),
        ReuseWeightedSums(),
        FactorSums(),
        ExpandSoftmax(),
        CompactMaterialization(),
        Canonicalize(),
        SinkLifts(),
        InlineThinLinear(),
        WidenSmallRows(),
        CommonSubexpressions(),
        UniteMasks(),
    ]
)
"""On programs: the forward one, and then the joint one."""

MASKING = ("compact_materialization", "fold_factors", "reassociate_products", "reorder_linear")
"""Passes that move computations to rows that nothing may read."""

LEVEL_2 = Passes[Plan](
    [FuseTraversals(), FuseEpilogues(), GroupKernels(), OrderKernels(), SortRows(), RoundStored()],
)
"""On plans."""


@dataclass(frozen=True)
class Recipe:
    """Which passes run, and whether every one is followed by the verifier."""

    level1: Passes[Program] = LEVEL_1
    level2: Passes[Plan] = LEVEL_2
    verify: bool = False

    def optimize(self, program: Program, *, to_differentiate: bool = False) -> Program:
        """``to_differentiate``: without what is done to the joint program only, and with masks of gradients."""
        passes = self.level1
        if to_differentiate:
            passes = passes.without(ExpandSoftmax(), WidenSmallRows())
            for name in MASKING:
                passes = passes.configured(name, to_differentiate=True)
        return Pipeline(passes, self.verify).run(program)

    def schedule(self, plan: Plan) -> Plan:
        return Pipeline(self.level2, self.verify).run(plan)

    def schedule_pair(self, forward: Plan, backward: Plan, saved: Sequence[tuple[int, int]]) -> tuple[Plan, Plan]:
        """Both directions of a program; ``saved``: as of :meth:`columba.passes.pipeline.Pass.run_pair`."""
        forward, backward = self.schedule(forward), self.schedule(backward)
        for p in self.level2:
            forward, backward = p.run_pair(forward, backward, saved)
        return forward, backward
