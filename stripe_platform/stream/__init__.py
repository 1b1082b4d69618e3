"""Continuous mode: both sinks follow the topics, each in a process of its own, watched, measured and reported."""
