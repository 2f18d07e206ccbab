"""The language, eager: what each lift and reduction means in plain PyTorch."""
