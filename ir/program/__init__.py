"""Level 1: what a layer means, as operations on tensors over the spaces of a graph."""
