"""Runs plans with C++ kernels."""
