"""Trials become records."""
