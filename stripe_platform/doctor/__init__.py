"""Examining machine, servers and stream: what is found, and what to do about it."""
