"""Work done once per content and shared by all trials through the cache."""
