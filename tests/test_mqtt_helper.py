"""The connection to a broker, spoken to a real Mosquitto: what arrives, what stays, and the words for each failure."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mqtt_helper
from mqtt_helper import BrokerDown, Connection, Message, Will
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.mqtt_fake import CONNECT, SUBSCRIBE, WELCOME, fake_broker, published, suback
from tests.peers.process import free_ports, wait_for
from workers._broker import BrokerTable as WorkersTable
from writer.outputs.mqtt import Options as OutputOptions


@dataclass(frozen=True)
class Address:
    """The options of a table."""

    port: int
    host: str = "127.0.0.1"
    username: str = ""
    password_env: str = ""
    tls: bool = False
    ca_file: str = ""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("locked"), tls=True, password=True) as broker:
        yield broker


def key_of(broker: Mosquitto, **changed: object) -> Address:
    options = {"username": broker.username, "password_env": "BROKER_PASSWORD", "tls": True, "host": "localhost"}
    return Address(broker.port, **{**options, "ca_file": str(broker.ca_file), **changed})  # type: ignore[arg-type]


@contextlib.contextmanager
def connected(
    address: Address, *filters: str, name: str = "helper", keep_session: bool = False, will: Will | None = None
) -> Iterator[Connection]:
    connection = Connection(address, name, keep_session=keep_session, will=will)
    try:
        connection.open(filters)
        yield connection
    finally:
        connection.close()


def run_until(connection: Connection, done: Callable[[list[Message]], object], within_s: float = 10.0) -> list[Message]:
    arrived: list[Message] = []
    deadline_s = time.monotonic() + within_s
    while not done(arrived):
        assert time.monotonic() < deadline_s, arrived
        arrived += connection.run(0.1)
    return arrived


def down(address: Address) -> BrokerDown:
    """How a connection fails."""
    connection = Connection(address, "helper")
    with pytest.raises(BrokerDown) as failure:
        connection.open(["a"])
    connection.close()
    assert failure.value.what
    assert failure.value.what_now
    return failure.value


# What arrives


def test_what_is_published_arrives_and_leaves(broker: Mosquitto) -> None:
    with connected(Address(broker.port), "leaves/#") as connection:
        connection.publish("leaves/one", b"hello")
        assert connection.flush(5)
        [message] = run_until(connection, len)
    assert message[:5] == ("leaves/one", b"hello", False, False, 1)


def test_a_retained_message_is_known_as_such(broker: Mosquitto) -> None:
    broker.publish("old/value", b"1", retain=True)
    with connected(Address(broker.port), "old/#") as connection:
        [message] = run_until(connection, len)
        assert message.retained
        broker.publish("old/value", b"2", retain=True)
        [message] = run_until(connection, len)
        assert not message.retained, "who listens already gets it as news"


def test_what_is_not_acknowledged_comes_again_and_what_is_does_not(broker: Mosquitto) -> None:
    with connected(Address(broker.port), "kept/#", name="kept", keep_session=True) as connection:
        assert not connection.session_kept
        for number in range(3):
            broker.publish("kept/number", str(number))
        first = run_until(connection, lambda arrived: len(arrived) == 3)
        assert not any(message.repeated for message in first)
        connection.acknowledge(first[:1])
        connection.run(0.1)
    broker.publish("kept/number", b"3")
    with connected(Address(broker.port), "kept/#", name="kept", keep_session=True) as connection:
        assert connection.session_kept
        again = run_until(connection, lambda arrived: len(arrived) == 3)
        assert [(message.payload, message.repeated) for message in again] == [(b"1", True), (b"2", True), (b"3", False)]


def test_a_session_that_is_not_kept_starts_with_nothing(broker: Mosquitto) -> None:
    for _ in range(2):
        with connected(Address(broker.port), "fleeting/#", name="fleeting") as connection:
            assert not connection.session_kept
            assert connection.run(0.1) == []
        broker.publish("fleeting/number", b"1")


def test_who_unsubscribed_hears_no_more(broker: Mosquitto) -> None:
    with connected(Address(broker.port), "quiet/one", "quiet/two") as connection:
        connection.unsubscribe(["quiet/one"])
        connection.unsubscribe([])
        connection.publish("quiet/one", b"1")
        connection.publish("quiet/two", b"2")
        [message] = run_until(connection, len)
    assert message.topic == "quiet/two"


def test_a_filter_that_is_refused_is_known() -> None:
    def answer(kind: int, body: bytes) -> bytes:
        if kind == SUBSCRIBE:
            return suback(body, lambda topic: 0x80 if topic == "secret" else 1)
        return WELCOME if kind == CONNECT else b""

    with fake_broker(answer) as port, connected(Address(port), "open", "secret", "open/too") as connection:
        assert connection.refused == ["secret"]


def test_what_came_before_the_connection_ended_is_not_lost() -> None:
    last_words = b"".join(published("meter", str(number).encode()) for number in range(5))
    ended: list[bool] = []

    def answer(kind: int, body: bytes) -> bytes | None:
        if kind == CONNECT:
            return WELCOME
        if kind == SUBSCRIBE:
            return suback(body, lambda _: 1) + last_words
        ended.append(True)
        return None

    with fake_broker(answer) as port, connected(Address(port), "meter") as connection:
        connection.publish("anything", b"", qos=0)  # the answer is the end
        wait_for(lambda: ended, "the end")
        arrived = run_until(connection, lambda arrived: len(arrived) == 5)
        assert [message.payload for message in arrived] == [b"0", b"1", b"2", b"3", b"4"]
        with pytest.raises(BrokerDown, match="closed the connection"):
            run_until(connection, lambda _: False)


# The last will


def test_the_will_is_spoken_for_who_vanishes_and_not_for_who_takes_leave(broker: Mosquitto) -> None:
    with broker.watch("will/#") as seen:
        with connected(Address(broker.port), will=Will("will/polite", b"offline")):
            pass
        vanished = Connection(Address(broker.port), "vanished", will=Will("will/vanished", b"offline"))
        vanished.open()
        assert vanished._client
        vanished._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        wait_for(lambda: seen, "the will")
        vanished.close()
    assert [(message.topic, message.payload) for message in seen] == [("will/vanished", b"offline")]


# What can be wrong, in words


def test_a_password_and_tls_let_us_in(locked: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", locked.password)
    with connected(key_of(locked), "in/#") as connection:
        connection.publish("in/side", b"hello")
        assert [message.payload for message in run_until(connection, len)] == [b"hello"]


@pytest.mark.parametrize(
    ("password", "changed", "what", "what_now", "lasting"),
    [
        ("wrong", {}, "refuses this user or password", "correct username", True),
        ("", {}, "BROKER_PASSWORD is not set", "put the broker's password into it", True),
        ("any", {"ca_file": ""}, "shows a wrong certificate", "let ca_file name the authority", False),
        ("any", {"ca_file": "/nowhere.pem"}, "/nowhere.pem cannot be used", "let ca_file name the PEM file", True),
        ("any", {"tls": False}, "hung up before it had greeted us", "set tls = true", False),
    ],
)
def test_a_locked_broker_says_what_is_missing(
    locked: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    changed: dict[str, object],
    what: str,
    what_now: str,
    lasting: bool,
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", password)
    failure = down(key_of(locked, **changed))
    assert what in failure.what
    assert what_now in failure.what_now
    assert failure.lasting is lasting
    assert str(failure) == f"{failure.what}; {failure.what_now}"


def test_a_certificate_of_another_name_is_refused(locked: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", locked.password)
    assert "wrong certificate" in down(key_of(locked, host="0.0.0.0")).what  # this machine too


def test_nobody_there_is_told_with_what_to_do(broker: Mosquitto) -> None:
    [port] = free_ports(1)
    assert f"nothing listens at 127.0.0.1 port {port}" in down(Address(port)).what
    assert "does not speak TLS" in down(Address(broker.port, tls=True)).what


def test_a_name_that_nobody_knows_is_told() -> None:
    assert "the name nowhere.invalid is not known" in down(Address(1, host="nowhere.invalid")).what


def test_an_address_behind_which_nobody_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_helper, "_CONNECT_S", 0.2)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # fill its backlog: what comes now gets no answer at all
            full = stack.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(server.getsockname())
        assert "does not answer" in down(Address(server.getsockname()[1])).what


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_helper, "_ANSWER_S", 0.2)
    monkeypatch.setattr(mqtt_helper, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "said nothing to our greeting" in down(Address(server.getsockname()[1])).what
        assert "does not answer" in down(Address(server.getsockname()[1], tls=True)).what


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, "refuses the connection (code 0x85)"),
        (3, "is not available just now"),
        (4, "refuses this user or password"),
        (5, "refuses this user or password"),
    ],
)
def test_each_refusal_of_a_broker_has_its_words(code: int, words: str) -> None:
    with fake_broker(lambda _kind, _body: bytes([0x20, 2, 0, code])) as port:
        assert words in down(Address(port)).what


def test_a_broker_that_hangs_is_given_up_and_found_again(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_helper, "_KEEPALIVE_S", 1)
    with connected(Address(broker.port), "hung/#") as connection:
        broker.pause()
        try:
            began_s = time.monotonic()
            with pytest.raises(BrokerDown, match="does not answer any more"):
                run_until(connection, lambda _: False, within_s=15)
            print(f"given up after {time.monotonic() - began_s:.1f} s with a keepalive of 1 s")
        finally:
            broker.go_on()
    with connected(Address(broker.port), "hung/#") as connection:
        connection.publish("hung/up", b"no")
        assert run_until(connection, len)


def test_a_broker_that_is_killed_is_told_and_keeps_what_it_had_saved(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        with connected(Address(broker.port), "saved/#", name="saved", keep_session=True) as connection:
            broker.publish("saved/one", b"1")
            assert run_until(connection, len)
            wait_for((tmp_path / "mosquitto.db").exists, "Mosquitto to save")
            broker.stop(9)
            with pytest.raises(BrokerDown, match="closed the connection"):
                run_until(connection, lambda _: False)
        broker.start()
        with connected(Address(broker.port), "saved/#", name="saved", keep_session=True) as connection:
            assert connection.session_kept


def test_a_connection_that_is_not_open_says_so(broker: Mosquitto) -> None:
    connection = Connection(Address(broker.port), "closed")
    connection.close()
    for call in (lambda: connection.run(0.1), lambda: connection.publish("a", b""), lambda: connection.flush(1)):
        with pytest.raises(BrokerDown, match="not open"):
            call()


@pytest.mark.parametrize("table", [WorkersTable, OutputOptions])
def test_no_table_sends_a_password_across_the_internet_in_the_clear(table: type) -> None:
    wanted = {"kind": "mqtt", "username": "herd", "password_env": "SECRET"}
    with pytest.raises(ValueError, match=r"would cross the internet to broker\.example\.com in the clear"):
        table(host="broker.example.com", **wanted)
    with pytest.raises(ValueError, match="set username"):
        table(**{**wanted, "username": ""})
    with pytest.raises(ValueError, match="with TLS only"):
        table(ca_file="ca.pem", **wanted)
    assert table(host="broker.example.com", tls=True, **wanted)
    assert table(host="192.168.1.5", **wanted)
