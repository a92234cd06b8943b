"""The vfio-user protocol: a PCI device in one process, its driver (or a virtual machine) in another.

Messages over a UNIX socket, file descriptors beside them. protocol.py is the messages, channel.py how they travel;
device.py is what a server serves, answers.py what the device says to each message, server.py the connections;
client.py is the other end, on which one of the driver's transports is built (driver/vfio_user.py). lent.py is memory
that the other side can take back, shared_event.h eventfds whose flags it can change.
"""
