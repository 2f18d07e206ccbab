"""Text from elsewhere, made safe to show: files, records and names of others are not to move the cursor of a terminal."""

from __future__ import annotations


def plain(text: object, *, lines: bool = False) -> str:
    r"""What ``str(text)`` says, with all that cannot be printed as Python writes it. ``lines``: lines and tabs stay.

    >>> plain("\x1b[31mred\n")
    '\\x1b[31mred\\n'
    """
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text)
    )
