"""MongoDB: documents, features and the offsets that they stand at, from the change topics."""
