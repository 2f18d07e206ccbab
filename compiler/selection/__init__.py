"""Which of several ways to compile a program is best for a graph on this machine."""
