"""Benchmarks: Columba's layers against peers and against the machine's limits. Run ``python -m benchmarks``."""
