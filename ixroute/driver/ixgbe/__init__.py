"""Intel 82599, X540, X550: the ixgbe family. Bring-up in Python, a datasheet section at a time; rings in C."""
