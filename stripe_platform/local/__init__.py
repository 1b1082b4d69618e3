"""The servers of the platform on one machine, without containers."""
