"""Bounds of whole numbers, for programs that look at their flags before they import anything large."""

from __future__ import annotations

LARGEST_INT32 = 2**31 - 1
LARGEST_INT64 = 2**63 - 1
