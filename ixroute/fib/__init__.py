"""Prefixes to adjacency indexes: FIB, RIB, adjacencies. Knows no packet."""
