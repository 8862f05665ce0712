"""Posts messages to wattherd's esp32_http source. It answers 200 only when they are safe there."""

from connection import Connection
from delivery import FAILED, REFUSED, TAKEN

_PATH = "/api/v1/ingest/pulse"
_LONGEST_MS = 20000
_MOST_ANSWER = 1536


class Http:
    def __init__(self, server, port, token):
        self._address = (server, port)
        headers = f"POST {_PATH} HTTP/1.1\r\nHost: {server}:{port}\r\nConnection: close\r\n"
        if token:
            headers += f"Authorization: Bearer {token}\r\n"
        self._headers = headers + "Content-Type: application/json\r\nContent-Length: "
        self._where = f"http://{server}:{port}"
        self._compose = None
        self._connection = None
        self._answer = b""
        self._until_ms = None

    def begin(self, compose):
        self._compose = compose
        self._answer = b""
        self._until_ms = None

    def step(self, now_ms):
        """Go on; return what became of the message and why, None while that is open."""
        if self._compose is None and self._connection is None:
            return None
        if self._until_ms is None:
            self._until_ms = now_ms + _LONGEST_MS
        try:
            is_over = self._go_on()
        except OSError as error:
            return self._conclude(f"no connection ({error})")
        if is_over or now_ms >= self._until_ms:
            return self._conclude("no answer")
        return None

    def close(self):
        self._compose = None
        if self._connection:
            self._connection.close()
            self._connection = None

    def _go_on(self):
        """Return whether the answer is complete."""
        if self._connection is None:
            self._connection = Connection(self._address)
        if not self._connection.is_open():
            return False
        if self._compose:
            compose, self._compose = self._compose, None
            body = compose()
            self._connection.send(f"{self._headers}{len(body)}\r\n\r\n".encode() + body)
        self._connection.flush()
        came = self._connection.receive()
        if came:
            self._answer += came
        return came == b"" or _is_complete(self._answer) or len(self._answer) > _MOST_ANSWER

    def _conclude(self, otherwise):
        """Judge by the answer, if there is one: it counts even if the connection broke after it."""
        self.close()
        status = _status(self._answer)
        if status == 200:
            return TAKEN, ""
        if status is None:
            return FAILED, f"{self._where}: {otherwise}; see that wattherd runs there and listens to the network"
        why = f"{self._where} answers {status}: {_body(self._answer)}"
        return REFUSED if status in (400, 413, 422) else FAILED, why


def _status(answer):
    if not answer.startswith(b"HTTP/1.") or b"\r\n" not in answer:
        return None
    word = answer.split(b"\r\n")[0].split(b" ")[1:2]
    return int(word[0]) if word and word[0].isdigit() else None


def _body(answer):
    """Return the beginning of the body as a line for the console, whatever is in it."""
    end = answer.find(b"\r\n\r\n")
    return "".join(chr(each) for each in answer[end + 4 : end + 400] if 32 <= each < 127) if end >= 0 else ""


def _is_complete(answer):
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    for line in answer[:end].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = line[15:].strip()
            return length.isdigit() and len(answer) - end - 4 >= int(length)
    return False
