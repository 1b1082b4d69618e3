"""What is personal, and where it may go."""
