"""Clusters: the file that describes one, and the way of a study there and back."""
