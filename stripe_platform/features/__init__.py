"""MongoDB: documents for support and features for scoring, written from the change stream exactly once."""
