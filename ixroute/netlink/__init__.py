"""The kernel's tables, followed."""
