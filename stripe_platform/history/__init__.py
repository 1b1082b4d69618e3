"""Dagster's history: what runs leave behind, and for how long it stays."""
