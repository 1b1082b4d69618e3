"""A payments company made up by seed: its history at once, or its life as it happens."""
