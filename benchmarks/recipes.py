"""Named recipes: which passes run in an ablation."""

from __future__ import annotations

from columba.driver import LEVEL_1, Recipe


def without(*names: str) -> Recipe:
    """The full recipe less some passes."""
    unknown = set(names) - set(LEVEL_1.split(","))
    if unknown:
        raise ValueError(f"no passes {', '.join(sorted(unknown))} in the recipe")
    return Recipe(level1=",".join(p for p in LEVEL_1.split(",") if p not in names))


RECIPES = {
    "none": without("reorder_linear", "compact_materialization", "merge_reductions"),
    "compaction": without("reorder_linear", "merge_reductions"),
    "reordering": without("compact_materialization", "merge_reductions"),
    "both": without("merge_reductions"),
    "chosen": Recipe(),
}
"""``chosen`` is what ``columba.compile`` does by itself; the others are forced."""

CHOSEN = "chosen"
