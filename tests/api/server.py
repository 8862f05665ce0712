"""The real api process, forked as the parent does it, and how a test talks to it over loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import re
import resource
import select
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import logs
from api import serve
from tap import Basin

FORK: Any = multiprocessing.get_context("fork")


class Answer:
    """What came back. Names of headers are in small letters."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """The api process of a house: forked as the parent does it, so that it shares the board."""

    def __init__(self, house: Any, *, descriptors: int = 1024, basin: Basin | None = None) -> None:
        self.log = b""
        self._log_end, log_end = os.pipe()
        self.process = FORK.Process(target=self._run, args=(house, log_end, descriptors, basin))
        self.process.start()
        os.close(log_end)
        self.port = 0

    @staticmethod
    def _run(house: Any, log_end: int, descriptors: int, basin: Basin | None) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the parent leaves it
        sys.stderr = os.fdopen(log_end, "w")
        logs.start()
        serve.main(house.settings, house.board, basin)

    def wait_until_it_serves(self) -> None:
        while not (found := re.search(rb"serving http://\S+:(\d+)", self.log)):
            assert self._read_log(), f"the api ended: {self.log.decode()}"
        self.port = int(found[1])

    def end(self, within_s: float) -> int | None:
        """Wait for the end of the process, and return its exit code."""
        self.process.join(within_s)
        if self.process.exitcode is not None:
            while self._read_log():
                pass
        return self.process.exitcode

    def _read_log(self) -> bytes:
        ready, _, _ = select.select([self._log_end], [], [], 10)
        assert ready, f"the api says nothing: {self.log.decode()}"
        text = os.read(self._log_end, 65536)
        self.log += text
        return text

    def get(self, path: str) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()

    def ask(self, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Answer:
        """Ask in any way, and return whatever comes; names of headers are written with _ for -."""
        connection = http.client.HTTPConnection(host, self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        os.close(self._log_end)


@contextlib.contextmanager
def served(house: Any, **options: Any) -> Iterator[Server]:
    server = Server(house, **options)
    try:
        yield server
    finally:
        server.close()
