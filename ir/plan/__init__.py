"""Level 2: how a layer is computed, as kernels over buffers."""
