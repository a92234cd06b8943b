"""A small Linux in QEMU that proves the emulator and the driver: packages, initramfs, machine, results."""
