"""From level 1 to level 2: which values get a buffer, and the one kernel that fills each."""
