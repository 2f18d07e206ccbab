"""What each torch function means on the rows of a space: one rule a function, by its name.

A rule takes the call and then the function's own arguments, under torch's names, with :class:`Operand` in place of tensors.
"""

from columba.frontend.rules import (
    arrangement,
    contractions,
    features,
    normalizations,
    numbers,
    pointwise,
    selection,
    shapes,
)
from columba.frontend.rules.registry import INSTEAD, RULES, Call

__all__ = [
    "INSTEAD",
    "RULES",
    "Call",
    "arrangement",
    "contractions",
    "features",
    "normalizations",
    "numbers",
    "pointwise",
    "selection",
    "shapes",
]
