"""Program transformations, one file each: ``interop`` on level 1, ``intraop`` on level 2."""
