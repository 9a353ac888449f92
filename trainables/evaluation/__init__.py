"""Checkpoint in, scores per query out."""
