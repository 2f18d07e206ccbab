"""The standard pipelines, and recipes: which passes run at either level."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.interop.program import Program
from columba.ir.intraop.plan import Plan
from columba.passes.interop.aggregate_first import AggregateFirst
from columba.passes.interop.canonicalize import Canonicalize
from columba.passes.interop.common_subexpressions import CommonSubexpressions
from columba.passes.interop.compact_materialization import CompactMaterialization
from columba.passes.interop.expand_softmax import ExpandSoftmax
from columba.passes.interop.factor_sums import FactorSums
from columba.passes.interop.fold_factors import FoldFactors
from columba.passes.interop.hoist_factors import HoistFactors
from columba.passes.interop.inline_thin_linear import InlineThinLinear
from columba.passes.interop.legalize_linear import LegalizeLinear
from columba.passes.interop.merge_linears import MergeLinears
from columba.passes.interop.merge_pads import MergePads
from columba.passes.interop.merge_reductions import MergeReductions
from columba.passes.interop.pull_negations import PullNegations
from columba.passes.interop.reassociate_products import ReassociateProducts
from columba.passes.interop.reorder_linear import ReorderLinear
from columba.passes.interop.reuse_weighted_sums import ReuseWeightedSums
from columba.passes.interop.sink_lifts import SinkLifts
from columba.passes.interop.split_linear import SplitLinear
from columba.passes.intraop.fuse_epilogues import FuseEpilogues
from columba.passes.intraop.fuse_traversals import FuseTraversals
from columba.passes.intraop.group_kernels import GroupKernels
from columba.passes.intraop.order_kernels import OrderKernels
from columba.passes.intraop.round_stored import RoundStored
from columba.passes.intraop.sort_rows import SortRows
from columba.pipeline import Passes, Pipeline

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
        CommonSubexpressions(),
    ]
)
"""On programs: the forward one, and then the joint one."""

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
        """``to_differentiate``: without what is done to the joint program only."""
        passes = self.level1.without(ExpandSoftmax()) if to_differentiate else self.level1
        return Pipeline(passes, self.verify).run(program)

    def schedule(self, plan: Plan) -> Plan:
        return Pipeline(self.level2, self.verify).run(plan)
