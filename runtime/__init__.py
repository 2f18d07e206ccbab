"""What exists while a model runs: graphs and their index arrays, the eager language, kernels built, cached and launched."""
