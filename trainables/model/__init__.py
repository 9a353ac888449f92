"""Batches in, loss out."""
