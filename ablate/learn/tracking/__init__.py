"""The ledger's findings into MLflow: one layout, filled often, by many hands, with one outcome."""
