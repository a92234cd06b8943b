"""The vfio-user protocol: a PCI device in one process, its driver (or a virtual machine) in another.

Messages over a UNIX socket, file descriptors beside them. What both ends need, and the server; the client, which is
one of the driver's transports, is driver/vfio_user.py.
"""
