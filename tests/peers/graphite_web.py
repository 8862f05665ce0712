"""A real graphite-web, which renders what carbon keeps: for every target that a dashboard of ours has.

It runs with the interpreter of the system, as Debian packages it. `GraphiteWeb.render` is what a test asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.process import free_ports, missing_peer, require, running

_SYSTEM_PYTHON = "/usr/bin/python3"
_LOCAL_SETTINGS = """
SECRET_KEY = 'of a test'
ALLOWED_HOSTS = ['127.0.0.1']
TIME_ZONE = 'UTC'
GRAPHITE_ROOT = {root!r}
STORAGE_DIR = {storage!r}
WHISPER_DIR = {whisper!r}
STANDARD_DIRS = [WHISPER_DIR]
LOG_DIR = {storage!r}
LOG_FILE_INFO = LOG_FILE_EXCEPTION = LOG_FILE_CACHE = LOG_FILE_RENDERING = '-'
CARBONLINK_HOSTS = {carbonlinks!r}
CARBONLINK_TIMEOUT = 5.0
DEFAULT_CACHE_DURATION = 0
DEFAULT_XFILES_FACTOR = 0
FIND_CACHE_DURATION = 0
CACHES = {{'default': {{'BACKEND': 'django.core.cache.backends.dummy.DummyCache'}}}}
"""
_SERVE = """
import socketserver, sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from graphite.wsgi import application

class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass

make_server('127.0.0.1', int(sys.argv[1]), application, Server, Handler).serve_forever()
"""


class RenderError(Exception):
    """graphite-web did not take a target; the text is its own."""


@dataclass(frozen=True)
class GraphiteWeb:
    """A graphite-web at `url`; nothing is cached, so what carbon has is seen at once."""

    url: str

    def render(self, *targets: str, from_s: int | str, until_s: int | str = "now", **more: str) -> list[dict[str, Any]]:
        """Return the series of `targets`, each with `target`, `tags` and `datapoints` ([value, seconds] pairs).

        `from_s` and `until_s` are seconds since 1970, or words such as "-1h". Raise RenderError where it says no.
        """
        fields = [("target", target) for target in targets]
        fields += [("from", str(from_s)), ("until", str(until_s)), ("format", "json"), *more.items()]
        return list(self._ask("/render?" + urllib.parse.urlencode(fields)))

    def find(self, pattern: str) -> list[str]:
        """Name what is there for a pattern of a path, such as "home.electricity.*"."""
        found = self._ask("/metrics/find?" + urllib.parse.urlencode({"query": pattern, "format": "treejson"}))
        return sorted(each["id"] for each in found)

    def _ask(self, target: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + target, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RenderError(f"{error.code}: {error.read().decode(errors='replace')[:2000]}") from error


@contextlib.contextmanager
def running_graphite_web(
    folder: Path, whisper_dir: Path, carbon_query_port: int | None = None
) -> Iterator[GraphiteWeb]:
    """Serve what lies in `whisper_dir`, and what the carbon with that port for queries has not written yet."""
    python = require(_SYSTEM_PYTHON)
    if not Path("/usr/lib/python3/dist-packages/graphite/wsgi.py").exists():
        missing_peer("graphite-web")
    storage = folder / "storage"
    storage.mkdir(parents=True)
    whisper_dir.mkdir(parents=True, exist_ok=True)
    (folder / "test_graphite_settings.py").write_text(
        _LOCAL_SETTINGS.format(
            root=str(folder),
            storage=str(storage),
            whisper=str(whisper_dir),
            carbonlinks=[] if carbon_query_port is None else [f"127.0.0.1:{carbon_query_port}"],
        )
    )
    environment = {
        "PYTHONPATH": str(folder),
        "DJANGO_SETTINGS_MODULE": "graphite.settings",
        "GRAPHITE_SETTINGS_MODULE": "test_graphite_settings",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [python, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (port,) = free_ports(1)
    with running([python, "-c", _SERVE, str(port)], port, folder / "graphite-web.log", environment):
        yield GraphiteWeb(f"http://127.0.0.1:{port}")
