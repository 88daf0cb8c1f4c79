"""The pure core: values in, values out. No clock, socket, disk, thread, dice or log."""
