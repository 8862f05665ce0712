"""What lies in board/ is MicroPython, and not for this interpreter."""

collect_ignore = ["board"]
