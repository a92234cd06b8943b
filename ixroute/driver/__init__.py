"""Ports: rings, frames, memory. Knows no IP."""
