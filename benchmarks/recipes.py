"""Named recipes: what an ablation forces and forbids, in the spelling of ``columba.compile(passes=...)``."""

from __future__ import annotations

CHOSEN = "chosen"

RECIPES = {
    CHOSEN: "",
    "none": "-compact_materialization,-reorder_linear,-aggregate_first",
    "compaction": "compact_materialization,-reorder_linear,-aggregate_first",
    "reordering": "-compact_materialization,reorder_linear,-aggregate_first",
    "both": "compact_materialization,reorder_linear,-aggregate_first",
    "aggregate-first": "compact_materialization,reorder_linear,aggregate_first",
}
"""``chosen`` is what the cost model makes of the case; the others leave it nothing to choose."""
