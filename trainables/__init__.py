"""One trial: from a complete description it trains, evaluates and reports numbers."""
