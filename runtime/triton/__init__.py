"""Runs plans with Triton kernels."""
