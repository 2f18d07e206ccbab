"""Typed graphs: made, checked, converted, and the index arrays that kernels read of them."""
