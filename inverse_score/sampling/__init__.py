"""Samplers of a prior."""
