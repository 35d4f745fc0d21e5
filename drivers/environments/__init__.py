"""Environments as TF-Agents' `TFEnvironment`s."""
