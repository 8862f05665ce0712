"""A strict InfluxDB 2, made from its API description: it takes what the description allows, and nothing else.

No server here runs Flux, so this one has every script checked by the language's own checker and keeps it for the test.
A request with a wrong header, an unknown parameter or field, or one that comes before what it needs is a violation: it
is answered with 400 and fails the test, also where the caller would swallow the answer.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tests.peers.flux_checker import FluxChecker

ADMIN: Final = "admin-token-of-the-operator-0123456789=="
ORG: Final = "home"
_ORG_ID: Final = "0a0b0c0d0e0f0a0b"
_JSON: Final = "application/json"

Answer = tuple[int, Any]


class Violation(Exception):  # noqa: N818 - of the API's description
    """What no client may send."""


@dataclass(frozen=True)
class Call:
    """A request that was in order."""

    method: str
    path: str
    parameters: dict[str, str]
    body: Any
    token: str


@dataclass
class Influx2:
    """The server's state, for the test to look at and to change."""

    flux: FluxChecker
    hashes_tokens: bool = False  # as from 2.9 on: a token is shown once
    version: str = "v2.7.12"
    url: str = ""
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    authorizations: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, list[bytes]] = field(default_factory=dict)  # by bucket
    calls: list[Call] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    answers_next: list[Answer] = field(default_factory=list)  # to queries, before it answers as usual
    date: str = ""  # what it takes for the present, as HTTP says it
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(0x1000))

    def bucket(self, name: str) -> dict[str, Any]:
        return next(one for one in self.buckets.values() if one["name"] == name)

    def make(self, *names: str, keeps_s: int = 0) -> None:
        """Have buckets, as if somebody had made them before."""
        for name in names:
            rules = [{"type": "expire", "everySeconds": keeps_s}] if keeps_s else []
            self._add_bucket({"orgID": _ORG_ID, "name": name, "retentionRules": rules})

    def token(self, *rights: tuple[str, str]) -> str:
        """Return a token that may "read" or "write" the buckets named."""
        permissions = [
            {"action": action, "resource": {"type": "buckets", "id": self.bucket(name)["id"], "orgID": _ORG_ID}}
            for action, name in rights
        ]
        made = self._add_authorization({"orgID": _ORG_ID, "permissions": permissions, "description": "of a test"})
        return str(made["token"])

    # ---- buckets

    def get_orgs(self, call: Call) -> Answer:
        if call.parameters.get("org", ORG) != ORG:
            return 404, _error("not found", f'organization name "{call.parameters["org"]}" not found')
        return 200, {"orgs": [{"id": _ORG_ID, "name": ORG}], "links": {"self": "/api/v2/orgs"}}

    def get_buckets(self, call: Call) -> Answer:
        self._check_org(call.parameters, needed=False)
        limit, offset = int(call.parameters.get("limit", 20)), int(call.parameters.get("offset", 0))
        if not 1 <= limit <= 100:
            raise Violation(f"limit {limit} is not from 1 to 100")
        system = [{"id": "00000000000000f1", "name": "_monitoring", "type": "system", "retentionRules": []}]
        seen = [one for one in (*self.buckets.values(), *system) if self._may(call.token, "read", one["id"])]
        if (name := call.parameters.get("name")) is not None:
            seen = [one for one in seen if one["name"] == name]
        return 200, {"buckets": seen[offset : offset + limit], "links": {"self": "/api/v2/buckets"}}

    def post_buckets(self, call: Call) -> Answer:
        if call.body["name"] in {one["name"] for one in self.buckets.values()}:
            return 422, _error("conflict", f"bucket with name {call.body['name']} already exists")
        if call.body["name"].startswith("_"):
            return 422, _error("unprocessable entity", "bucket names may not begin with an underscore")
        if any(0 < rule["everySeconds"] < 3600 for rule in call.body["retentionRules"]):
            return 422, _error("unprocessable entity", "expiration seconds must be greater than or equal to one hour")
        return 201, self._add_bucket(call.body)

    def delete_buckets(self, call: Call, bucket: str) -> Answer:
        return self._delete(self.buckets, bucket)

    def _add_bucket(self, body: dict[str, Any]) -> dict[str, Any]:
        made = {"id": self._id(), "type": "user", **body}
        self.buckets[made["id"]] = made
        return made

    # ---- tasks

    def get_tasks(self, call: Call) -> Answer:
        self._check_org(call.parameters, needed=False)
        named = [task for task in self.tasks.values() if task["name"] == call.parameters.get("name", task["name"])]
        return 200, {"tasks": named[: int(call.parameters.get("limit", 100))], "links": {"self": "/api/v2/tasks"}}

    def post_tasks(self, call: Call) -> Answer:
        self._check_org(call.body, needed=True)
        if wrong := self.flux.check(call.body["flux"]).errors:
            return 400, _error("invalid", "; ".join(wrong))
        made = {"id": self._id(), "status": "active", **call.body, **self._options(call.body["flux"])}
        self.tasks[made["id"]] = made
        return 201, made

    def patch_tasks(self, call: Call, task: str) -> Answer:
        if task not in self.tasks:
            return 404, _error("not found", "failed to find task")
        if "flux" in call.body:
            if wrong := self.flux.check(call.body["flux"]).errors:
                return 400, _error("invalid", "; ".join(wrong))
            self.tasks[task] |= self._options(call.body["flux"])
        self.tasks[task] |= call.body
        return 200, self.tasks[task]

    def delete_tasks(self, call: Call, task: str) -> Answer:
        return self._delete(self.tasks, task)

    def _options(self, script: str) -> dict[str, str]:
        """What a task is called and when it runs, as its script says; the buckets it names must be there."""
        for name in _buckets_in(script):
            if name not in {one["name"] for one in self.buckets.values()}:
                raise Violation(f"the task asks for the bucket {name!r} before it is there")
        return self.flux.check(script).task

    # ---- tokens

    def get_authorizations(self, call: Call) -> Answer:
        self._check_org(call.parameters, needed=False)
        shown = [{**one, "token": "redacted"} if self.hashes_tokens else one for one in self.authorizations.values()]
        return 200, {"authorizations": shown, "links": {"self": "/api/v2/authorizations"}}

    def post_authorizations(self, call: Call) -> Answer:
        for permission in call.body["permissions"]:
            if permission["resource"]["id"] not in self.buckets:
                raise Violation(f"a token for a bucket that is not there: {permission}")
        return 201, self._add_authorization(call.body)

    def delete_authorizations(self, call: Call, authorization: str) -> Answer:
        return self._delete(self.authorizations, authorization)

    def _add_authorization(self, body: dict[str, Any]) -> dict[str, Any]:
        number = self._id()
        made = {"id": number, "status": "active", **body, "token": f"{number}-{'t' * 60}=="}
        self.authorizations[number] = made
        return made

    # ---- data

    def post_write(self, call: Call) -> Answer:
        self._check_org(call.parameters, needed=True)
        there = [one for one in self.buckets.values() if one["name"] == call.parameters["bucket"]]
        if not there:
            return 404, _error("not found", f'bucket "{call.parameters["bucket"]}" not found')
        if not self._may(call.token, "write", there[0]["id"]):
            return 403, _error("forbidden", "insufficient permissions for write")
        self.lines.setdefault(there[0]["name"], []).extend(call.body.splitlines())
        return 204, None

    def post_query(self, call: Call) -> Answer:
        self._check_org(call.parameters, needed=True)
        script = call.body["query"]
        if wrong := self.flux.check(script).errors:
            return 400, _error("invalid", "; ".join(wrong))
        if self.answers_next:
            return self.answers_next.pop(0)
        for name in _buckets_in(script):
            there = [one for one in self.buckets.values() if one["name"] == name]
            if not there:
                return 404, _error("not found", f'failed to initialize execute state: could not find bucket "{name}"')
            action = "write" if f'to(bucket: "{name}")' in script else "read"
            if not self._may(call.token, action, there[0]["id"]):
                return 401, _error("unauthorized", "unauthorized access")
        self.queries.append(script)
        yields = re.findall(r'store\(name: "(\w+)"\)', script)
        return 200, "".join(f",result,table,_field\r\n,{name},0,2\r\n\r\n" for name in yields).encode()

    # ---- what all have in common

    def _id(self) -> str:
        return f"{next(self._ids):016x}"

    def _delete(self, there: dict[str, Any], number: str) -> Answer:
        return (204, None) if there.pop(number, None) else (404, _error("not found", "not found"))

    def _may(self, token: str, action: str, bucket: str) -> bool:
        if token == ADMIN:
            return True
        [held] = [one for one in self.authorizations.values() if one["token"] == token]
        return any(
            permission["action"] == action and permission["resource"]["id"] == bucket
            for permission in held["permissions"]
        )

    def _check_org(self, told: dict[str, Any], *, needed: bool) -> None:
        if needed and not {"org", "orgID"} & told.keys():
            raise Violation("neither org nor orgID")
        if told.get("org", ORG) != ORG or told.get("orgID", _ORG_ID) != _ORG_ID:
            raise Violation(f"another organization: {told.get('org')} {told.get('orgID')}")


@dataclass(frozen=True)
class Route:
    """What the description says of one operation."""

    pattern: str
    answer: Callable[..., Answer]
    parameters: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()  # parameters
    body: Any = None  # fields: whether each is required, and what is in it
    content_type: str = ""


_RULE: Final = {"type": False, "everySeconds": True, "shardGroupDurationSeconds": False}
_RESOURCE: Final = {"type": True, "id": False, "name": False, "orgID": False, "org": False}
_ROUTES: Final = {
    "GET": (
        Route("/api/v2/orgs", Influx2.get_orgs, frozenset({"offset", "limit", "descending", "org", "orgID", "userID"})),
        Route(
            "/api/v2/buckets",
            Influx2.get_buckets,
            frozenset({"offset", "limit", "after", "org", "orgID", "name", "id"}),
        ),
        Route(
            "/api/v2/tasks",
            Influx2.get_tasks,
            frozenset({"name", "after", "user", "org", "orgID", "status", "limit", "type"}),
        ),
        Route("/api/v2/authorizations", Influx2.get_authorizations, frozenset({"userID", "user", "orgID", "org"})),
    ),
    "POST": (
        Route(
            "/api/v2/buckets",
            Influx2.post_buckets,
            body={
                "orgID": True,
                "name": True,
                "description": False,
                "rp": False,
                "retentionRules": (True, [_RULE]),
                "schemaType": False,
            },
            content_type=_JSON,
        ),
        Route(
            "/api/v2/tasks",
            Influx2.post_tasks,
            body={"orgID": False, "org": False, "status": False, "flux": True, "description": False},
            content_type=_JSON,
        ),
        Route(
            "/api/v2/authorizations",
            Influx2.post_authorizations,
            body={
                "orgID": True,
                "userID": False,
                "description": False,
                "status": False,
                "permissions": (True, [{"action": True, "resource": (True, _RESOURCE)}]),
            },
            content_type=_JSON,
        ),
        Route(
            "/api/v2/query",
            Influx2.post_query,
            frozenset({"org", "orgID"}),
            body={
                "query": True,
                "type": False,
                "extern": False,
                "params": False,
                "now": False,
                "dialect": (
                    False,
                    {
                        "header": False,
                        "delimiter": False,
                        "annotations": False,
                        "commentPrefix": False,
                        "dateTimeFormat": False,
                    },
                ),
            },
            content_type=_JSON,
        ),
        Route(
            "/api/v2/write",
            Influx2.post_write,
            frozenset({"org", "orgID", "bucket", "precision"}),
            frozenset({"org", "bucket"}),
            content_type="text/plain; charset=utf-8",
        ),
    ),
    "PATCH": (
        Route(
            r"/api/v2/tasks/([0-9a-f]{16})",
            Influx2.patch_tasks,
            body=dict.fromkeys(("status", "flux", "name", "every", "cron", "offset", "description"), False),
            content_type=_JSON,
        ),
    ),
    "DELETE": (
        Route(r"/api/v2/buckets/([0-9a-f]{16})", Influx2.delete_buckets),
        Route(r"/api/v2/tasks/([0-9a-f]{16})", Influx2.delete_tasks),
        Route(r"/api/v2/authorizations/([0-9a-f]{16})", Influx2.delete_authorizations),
    ),
}


def check_fields(told: Any, described: Any, where: str = "the body") -> None:
    """Raise `Violation` unless `told` has every field that is required, and none that the description does not know."""
    if isinstance(described, list):
        if not isinstance(told, list):
            raise Violation(f"{where} is no list")
        for each in told:
            check_fields(each, described[0], where)
        return
    if not isinstance(told, dict):
        raise Violation(f"{where} is no object")
    if unknown := told.keys() - described.keys():
        raise Violation(f"{where} has what nobody knows: {', '.join(sorted(unknown))}")
    for name, inner in described.items():
        required, deeper = inner if isinstance(inner, tuple) else (inner, None)
        if required and name not in told:
            raise Violation(f"{where} lacks {name}")
        if deeper is not None and name in told:
            check_fields(told[name], deeper, name)


@contextlib.contextmanager
def running_influx2(flux: FluxChecker, **options: Any) -> Iterator[Influx2]:
    """Serve until the end of the block, and fail it if anything was asked that the description does not allow."""
    state = Influx2(flux, **options)
    server = _server(state)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert state.violations == []


def _server(state: Influx2) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 20

        def do(self) -> None:
            with _one_at_a_time:
                try:
                    status, told = _answer(state, self)
                except Violation as violation:
                    state.violations.append(f"{self.command} {self.path}: {violation}")
                    status, told = 400, _error("invalid", str(violation))
            body = told if isinstance(told, bytes) else b"" if told is None else json.dumps(told).encode()
            self.send_response_only(status)
            self.send_header("Date", state.date or self.date_time_string())
            self.send_header("X-Influxdb-Build", "OSS")
            self.send_header("X-Influxdb-Version", state.version)
            self.send_header("Content-Type", "text/csv" if isinstance(told, bytes) else "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do  # noqa: N815 - as http.server wants it

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away

    _one_at_a_time = threading.Lock()
    return Server(("127.0.0.1", 0), Handler)


def _answer(state: Influx2, asked: BaseHTTPRequestHandler) -> Answer:
    content = asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
    target = urlsplit(asked.path)
    parameters = {name: values[0] for name, values in parse_qs(target.query, keep_blank_values=True).items()}
    if (asked.command, target.path) == ("GET", "/ping"):
        return 204, None
    for route in _ROUTES.get(asked.command, ()):
        if found := re.fullmatch(route.pattern, target.path):
            break
    else:
        raise Violation("there is no such operation")
    scheme, _, token = asked.headers.get("Authorization", "").partition(" ")
    known = {ADMIN, *(one["token"] for one in state.authorizations.values())}
    if scheme != "Token" or token not in known:
        return 401, _error("unauthorized", "unauthorized access")
    administers = route.answer not in (Influx2.post_query, Influx2.post_write, Influx2.get_buckets)
    if administers and token != ADMIN:
        return 401, _error("unauthorized", "unauthorized access")
    if unknown := parameters.keys() - route.parameters:
        raise Violation(f"parameters that nobody knows: {', '.join(sorted(unknown))}")
    if lacking := route.needs - parameters.keys():
        raise Violation(f"parameters that are missing: {', '.join(sorted(lacking))}")
    if route.content_type and asked.headers.get("Content-Type", "").lower() != route.content_type:
        raise Violation(f"Content-Type {asked.headers.get('Content-Type')}")
    if asked.headers.get("Content-Encoding") == "gzip":
        content = gzip.decompress(content)
    body: Any = content
    if route.body is not None:
        body = json.loads(content)
        check_fields(body, route.body)
    elif content and not route.content_type:
        raise Violation("a body where none belongs")
    call = Call(asked.command, target.path, parameters, body, token)
    state.calls.append(call)
    return route.answer(state, call, *found.groups())


def _buckets_in(script: str) -> list[str]:
    return re.findall(r'(?:from|to)\(bucket: "([^"]*)"\)', script)


def _error(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}
