"""A question becomes trials."""
