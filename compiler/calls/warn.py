"""Warnings that calls give once in a process."""

from columba.runtime.warn import warn_once

__all__ = ["warn_once"]
