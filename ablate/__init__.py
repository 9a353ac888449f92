"""Many trials: which ones to run, and what was learned."""
