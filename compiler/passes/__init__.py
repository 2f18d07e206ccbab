"""Program transformations, one file each: ``program`` on level 1, ``plan`` on level 2."""
