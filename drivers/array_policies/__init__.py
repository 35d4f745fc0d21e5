"""Policies executed on NumPy arrays."""
