"""Gradients: a program differentiated, cut in two, and what passes between the halves."""
