"""``columba inspect``: what a model takes of a GPU that need not be there.

Its Triton kernels are compiled ahead of time, and their binaries say what they take; its plans and the counts of a graph say what they
compute, move and keep. The graph need not be there either: its counts are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from columba.datasets.statistics import GraphStatistics
from columba.driver import Compilation
from columba.inspection.explain import compile_for, precision_for, variants_for
from columba.inspection.prediction import Prediction, predict
from columba.inspection.resources import PROCESSORS, KernelReport, occupancy, reports
from columba.ir.counts import Counts
from columba.ir.types import DType
from columba.runtime.dtypes import ir_dtype
from columba.runtime.triton.functions import settled_precision
from columba.selection.chips import CHIPS, Chip
from columba.selection.rates import rates_of
from columba.selection.variants import Variants

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")


@dataclass(frozen=True)
class Inspection:
    """A model on a chip and a graph.

    Attributes:
        variant: which way of compiling it was chosen, for that chip and that graph.
        chip: whose limits the times of ``text`` are at.
        prediction: work, times and memory.
        reports: what every function takes of ``target``; empty where nothing was compiled.
    """

    variant: str
    chip: Chip
    prediction: Prediction
    reports: tuple[KernelReport, ...]
    target: str | None

    def as_dict(self) -> dict[str, Any]:
        """Everything, for scripts."""
        return {
            "variant": self.variant,
            "chip": self.chip.name,
            "target": self.target,
            **self.prediction.as_dict(),
            "functions": [r.as_dict() for r in self.reports],
        }

    @property
    def text(self) -> str:
        """A table of kernels, one of chips, one of memory."""
        return self.prediction.table(self.chip, self.reports)


def inspect(model: Any, *args: Any, target: str = "sm_90", **kwargs: Any) -> Iterator[KernelReport]:
    """Compiles every Triton kernel of a model for a GPU architecture, one after the other, and reports on each.

    Args:
        model: what to compile, as :func:`columba.explain` takes it.
        args, kwargs: the arguments of a call; kernels of the backward pass are included where something requires a gradient. The graph
            among them decides which variant of a kernel is compiled.
        target: ``sm_80``, ``sm_90``, ``sm_100`` or ``gfx942``.

    Raises:
        columba.runtime.triton.aot.UnknownTarget: there is no such architecture.
    """
    compilation, graph = compile_for(model, *args, **kwargs)
    return reports(compilation, graph.counts(), target, ir_dtype(graph.index_dtype), precision_for(model))


def inspection(
    model: Any,
    *args: Any,
    chip: Chip = CHIPS["h100"],
    target: str | None = None,
    statistics: GraphStatistics | None = None,
    **kwargs: Any,
) -> Inspection:
    """What a model takes of a GPU.

    Args:
        model, args, kwargs: as :func:`columba.explain` takes them. A training step is meant where something requires a gradient.
        chip: for which a variant is chosen.
        target: an architecture to compile the kernels for (which takes a second or two a kernel); None: they are not compiled.
        statistics: of the graph that is meant; None: the one among ``args``. With them, the graph in ``args`` only says how the model
            is called, and may be of any size.

    Raises:
        KeyError: the statistics lack a count that is needed. UnknownTarget: there is no such architecture.
    """
    variants, graph = variants_for(model, *args, **kwargs)
    counts = graph.counts_and_degrees() if statistics is None else statistics.counts()
    name, compilation = choose(variants, counts, chip)
    precision = precision_for(model)
    prediction = predict(compilation, counts, settled_precision(precision))
    index_dtype = ir_dtype(graph.index_dtype) if statistics is None else DType.I32
    found = () if target is None else tuple(reports(compilation, counts, target, index_dtype, precision))
    return Inspection(name, chip, prediction, found, target)


def choose(variants: Variants, counts: Counts, chip: Chip) -> tuple[str, Compilation]:
    """The variant that the cost model takes for the fastest on a chip, and its name; KeyError where a count is missing."""
    try:
        name = variants.best(counts, rates_of(chip))
    except KeyError as e:
        raise KeyError(f"the number of {e.args[0]} rows is not given") from None
    return name, variants.compilation(name)


__all__ = ["PROCESSORS", "TARGETS", "Inspection", "KernelReport", "choose", "inspect", "inspection", "occupancy"]
