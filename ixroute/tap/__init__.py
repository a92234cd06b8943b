"""The kernel's door: TAP interfaces, punt, inject."""
