"""A TCP connection that never waits: whatever it cannot do at once it does at one of the next steps."""

import errno
import select
import socket


class Connection:
    def __init__(self, address):
        self._unsent = b""
        self._is_open = False
        self._socket = socket.socket()
        self._poll = select.poll()
        try:
            self._socket.setblocking(False)
            self._socket.connect(address)
        except OSError as error:
            if error.errno != errno.EINPROGRESS:
                self._socket.close()
                raise
        self._poll.register(self._socket, select.POLLOUT)

    def is_open(self):
        """Whether the attempt to connect is over. If it has failed, sending says so."""
        if not self._is_open and self._poll.poll(0):
            self._is_open = True
        return self._is_open

    def send(self, data):
        self._unsent += data
        self.flush()

    def flush(self):
        """Send what can be sent; return whether that was all."""
        # write() and read() return None where they would have to wait; send() says that it timed out.
        while self._unsent:
            count = self._socket.write(self._unsent)
            if not count:
                return False
            self._unsent = self._unsent[count:]
        return True

    def receive(self):
        """Return what has come, None for nothing yet; b"" means that the other side has closed."""
        return self._socket.read(512)

    def close(self):
        self._socket.close()
