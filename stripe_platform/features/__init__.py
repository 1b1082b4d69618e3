"""Documents and features in MongoDB: every change of the captured tables, readable moments later."""
