"""A packet's way."""
