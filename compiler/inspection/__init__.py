"""What the compiler made of a model, and what it takes of a machine that need not be there."""
