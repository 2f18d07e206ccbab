"""From plans to source text: one sub-package a target."""
