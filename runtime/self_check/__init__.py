"""The self-check: whether the Triton kernels of a program are right on this GPU, found out once, in a process of its own."""
