"""Getting events from a device to a server: the contenders' clients and servers, each in a process of its own."""
