"""Exports of runs, verified in their environments: what `ppo-export` does."""

from __future__ import annotations
