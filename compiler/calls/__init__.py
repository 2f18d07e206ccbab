"""What a call of a compiled function or module goes through."""
