"""InfluxDB 2 by its own client library: buckets, the tasks that fill them, and a token each for writing and reading.

The client is for this alone: the writer has requests of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from commands._influx_place import READ_TOKEN, Place
from commands._influx_stores import NoConnection, Refused, Store
from commands._probe import leave
from writer.outputs._influx_rollups import rolled_levels, task_script

_TIMEOUT_MS: Final = 15_000
_PAGE: Final = 100
_WRITER: Final = "wattherd: writes readings, and sums up late ones"
_READER: Final = "wattherd: reads, for Grafana"


class InfluxV2(Store):
    """An organization of an InfluxDB 2."""

    def __init__(self, place: Place, version: str) -> None:
        super().__init__(place, version)
        self._library: Any = None  # it has no types
        self._client: Any = None
        self._org_id = ""

    def connect(self) -> None:
        try:
            import influxdb_client
        except ModuleNotFoundError:
            leave("influxdb-client is not installed; run: make setup-influxdb", 2)
        options = self.place.options
        self._library = influxdb_client
        self._client = self._library.InfluxDBClient(
            options.url, token=self.place.token, org=options.org, timeout=_TIMEOUT_MS
        )
        organizations = self._asked(self._client.organizations_api().find_organizations, org=options.org)
        if not organizations:
            raise NoConnection(f"there is no organization {options.org!r}, or the token may not see it")
        self._org_id = organizations[0].id

    def existing(self) -> dict[str, int]:
        return {bucket.name: _keeps_s(bucket) for bucket in self._buckets()}

    def create(self, bucket: str, keeps_s: int) -> None:
        rules = [self._library.BucketRetentionRules(type="expire", every_seconds=keeps_s)] if keeps_s else []
        request = self._library.PostBucketRequest(org_id=self._org_id, name=bucket, retention_rules=rules)
        self._done(self._client.buckets_api().create_bucket, bucket=request)

    def delete(self, bucket: str) -> None:
        for found in self._buckets():
            if found.name != bucket:
                continue
            for task in self._tasks_named(bucket):
                self._done(self._client.tasks_api().delete_task, task.id)
            for token in self._tokens():
                if any(found.id == permission.resource.id for permission in token.permissions):
                    self._done(self._client.authorizations_api().delete_authorization, token)
            self._done(self._client.buckets_api().delete_bucket, found)

    def make_tasks(self) -> Iterator[tuple[str, str]]:
        for bucket, script in self._scripts().items():
            there = self._tasks_named(bucket)
            if not there:
                made = self._library.TaskCreateRequest(org_id=self._org_id, flux=script, status="active")
                self._done(self._client.tasks_api().create_task, task_create_request=made)
                yield bucket, "created"
            elif there[0].flux != script:
                mended = self._library.TaskUpdateRequest(flux=script)
                self._done(self._client.tasks_api().update_task_request, there[0].id, mended)
                yield bucket, "brought up to date"
            else:
                yield bucket, "is there"

    def tasks(self) -> dict[str, str]:
        found = {}
        for bucket, script in self._scripts().items():
            there = self._tasks_named(bucket)
            if not there:
                found[bucket] = "is missing"
            elif there[0].status != "active":
                found[bucket] = "is switched off"
            elif there[0].flux != script:
                found[bucket] = "is not the one of this version"
        return found

    def make_tokens(self) -> Iterator[tuple[str, str, str]]:
        ids = {bucket.name: bucket.id for bucket in self._buckets()}
        everything = [("read", ids[name]) for name in self.buckets]
        wanted = {
            # To sum up late readings it has to read the raw ones; and to say whether all is well, the others.
            (_WRITER, self.place.writer_variable): [*everything, *(("write", ids[name]) for name in self.buckets)],
            (_READER, READ_TOKEN): everything,
        }
        for (whose, variable), rights in wanted.items():
            there = [token for token in self._tokens() if token.description == whose]
            if any({*rights} == _rights(token) for token in there):
                yield whose, variable, ""
                continue
            permissions = [self._permission(action, bucket_id) for action, bucket_id in rights]
            made = self._library.Authorization(org_id=self._org_id, permissions=permissions, description=whose)
            token = self._done(self._client.authorizations_api().create_authorization, authorization=made)
            for old in there:  # it was for buckets that are gone
                self._done(self._client.authorizations_api().delete_authorization, old)
            yield whose, variable, token.token

    def close(self) -> None:
        if self._client:
            self._client.close()

    def _scripts(self) -> dict[str, str]:
        options = self.place.options
        return {bucket: task_script(options, level, bucket) for level, bucket in rolled_levels(options)}

    def _buckets(self) -> list[Any]:
        """Return those of ours that are there, page by page."""
        found: list[Any] = []
        offset = 0
        while True:
            find = self._client.buckets_api().find_buckets
            page = self._done(find, org_id=self._org_id, limit=_PAGE, offset=offset).buckets
            found += [bucket for bucket in page if bucket.name in self.buckets]
            if len(page) < _PAGE:
                return found
            offset += _PAGE

    def _tasks_named(self, name: str) -> list[Any]:
        tasks: list[Any] = self._done(self._client.tasks_api().find_tasks, name=name, org_id=self._org_id)
        return tasks

    def _tokens(self) -> list[Any]:
        tokens = self._done(self._client.authorizations_api().find_authorizations, org_id=self._org_id)
        return [token for token in tokens if token.description in (_WRITER, _READER)]

    def _permission(self, action: str, bucket_id: str) -> Any:
        resource = self._library.PermissionResource(type="buckets", id=bucket_id, org_id=self._org_id)
        return self._library.Permission(action=action, resource=resource)

    def _asked(self, request: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Return the answer. Raise `NoConnection` for whatever stands between us and one."""
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return request(*given, **named)
        except ApiException as error:
            raise NoConnection(f"it answers {error.status}: {_words(error)}") from error
        except (HTTPError, OSError) as error:
            raise NoConnection(str(error)) from error

    def _done(self, request: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return self._asked(request, *given, **named)
        except NoConnection as error:
            raise Refused(str(error)) from error


def _keeps_s(bucket: Any) -> int:
    return sum(rule.every_seconds or 0 for rule in bucket.retention_rules or ())


def _rights(token: Any) -> set[tuple[str, str]]:
    return {(permission.action, permission.resource.id) for permission in token.permissions}


def _words(error: Any) -> str:
    """Return what the server said, in one line."""
    return " ".join(str(getattr(error, "message", "") or error.body or error.reason or "").split())[:300]
