"""An 82599 as seen from PCIe: registers and rare events in Python, packets in C, wires to real interfaces.

Written from the datasheet's facts and independent of driver/: two readings, so that one catches the other's mistakes.
"""
