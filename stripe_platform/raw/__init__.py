"""The raw change log: every change of every captured table, appended once, in Delta tables."""
