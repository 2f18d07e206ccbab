"""What each torch function means on the rows of a space: one rule a function, by its name.

A rule takes the call and then the function's own arguments, under torch's names, with :class:`Operand` in place of tensors.
"""

from columba.frontend.rules import contractions, features, pointwise, shapes
from columba.frontend.rules.registry import RULES, Call

__all__ = ["RULES", "Call", "contractions", "features", "pointwise", "shapes"]
