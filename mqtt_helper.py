"""One connection to an MQTT broker: how it is reached, what arrives, what leaves, and in words why it cannot be had.

MQTT 3.1.1, which every broker speaks. Nothing happens behind the caller's back: there is no thread, and the network is
looked at only inside the calls. Section numbers are those of the OASIS standard "MQTT Version 3.1.1".
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import logs

if TYPE_CHECKING:
    import paho.mqtt.client as paho

MOST_TOPIC_BYTES: Final = 512
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 5.0  # for CONNACK and SUBACK
_KEEPALIVE_S: Final = 10  # after twice that a broker that hangs is given up
_MOST_A_LOOK: Final = 200  # messages

# Why a broker refuses a connection (table 3.1, by the numbers of MQTT 5 that paho translates them to).
_BAD_CREDENTIALS: Final = (0x86, 0x87)
_UNAVAILABLE: Final = 0x88
_LOCAL_NAMES: Final = (".local", ".lan", ".home", ".home.arpa", ".internal", ".fritz.box")
_SHARED_ADDRESSES: Final = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598: Tailscale lives there


class Broker(Protocol):
    """The options of a table that names a broker; the table declares them, with its own defaults."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def username(self) -> str: ...
    @property
    def password_env(self) -> str: ...
    @property
    def tls(self) -> bool: ...
    @property
    def ca_file(self) -> str: ...


def unfit(broker: Broker) -> str:
    """Say what in a table that names a broker cannot be meant, or nothing."""
    if broker.ca_file and not broker.tls:
        return "ca_file is of use with TLS only: set tls = true, or leave it out"
    if broker.password_env and not broker.username:
        return "a password without a user is none to MQTT: set username"
    if broker.password_env and not broker.tls and not is_near(broker.host):
        return (
            f"the password would cross the internet to {broker.host} in the clear: set tls = true and the port for it"
            " (8883 is usual)"
        )
    return ""


def is_near(host: str) -> bool:
    """Whether a host is this machine or one of the same network.

    >>> [is_near(host) for host in ("localhost", "192.168.1.5", "fe80::1", "100.100.1.2", "nas", "nas.fritz.box")]
    [True, True, True, True, True, True]
    >>> [is_near(host) for host in ("8.8.8.8", "broker.example.com")]
    [False, False]
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host.rstrip(".") or host.lower().rstrip(".").endswith(_LOCAL_NAMES)
    return address.is_private or address.is_link_local or (address.version == 4 and address in _SHARED_ADDRESSES)


class BrokerDown(Exception):  # noqa: N818 - a state of the peer, not a fault of ours
    """The broker cannot be used just now: what is wrong, and what to do now."""

    def __init__(self, what: str, what_now: str, *, lasting: bool = False) -> None:
        super().__init__(f"{what}; {what_now}")
        self.what = what
        self.what_now = what_now
        self.lasting = lasting  # it will not pass by itself: somebody has to mend something


class Message(NamedTuple):
    """What arrived. It stays with the broker until it is acknowledged, if it was sent with QoS 1 or 2."""

    topic: str
    payload: bytes
    retained: bool  # an old value that the broker kept for whoever comes: nobody knows how old
    repeated: bool  # the broker sent it before and had no acknowledgement
    qos: int
    number: int


class Will(NamedTuple):
    """What the broker shall say, retained, when we vanish without a word (3.1.2.5)."""

    topic: str
    payload: bytes


class _ClosedWhenItFails(ssl.SSLSocket):
    """paho leaves a connection open whose greeting failed."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Connection:
    """A client of one broker. Calls never overlap; `close()` comes after every `open()`, also after a failed one."""

    def __init__(self, broker: Broker, client_id: str, *, keep_session: bool = False, will: Will | None = None) -> None:
        """`keep_session` lets the broker keep what it has for `client_id` while we are away (3.1.2.4)."""
        self.refused: list[str] = []  # filters that the broker does not let us subscribe to
        self.session_kept = False  # the broker knew us, and sends first what it kept for us
        self._broker = broker
        self._client_id = client_id
        self._keep_session = keep_session
        self._will = will
        self._client: paho.Client | None = None
        self._inbox: list[Message] = []
        self._connected: int | None = None  # the broker's answer to our CONNECT
        self._granted: list[bool] = []  # and to our SUBSCRIBE
        self._lost = ""

    @property
    def where(self) -> str:
        return f"the broker at {self._broker.host} port {self._broker.port}"

    def open(self, filters: Sequence[str] = ()) -> None:
        """Connect, and subscribe to `filters` with QoS 1. Raise `BrokerDown`."""
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        password = self._password()
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=not self._keep_session,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = _CONNECT_S
        if self._broker.username:
            client.username_pw_set(self._broker.username, password or None)
        if self._broker.tls:
            client.tls_set_context(self._tls())
        if self._will:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._inbox, self._connected, self._granted, self._lost, self.refused = [], None, [], "", []
        try:
            client.connect(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error
        self._await(lambda: self._connected is not None, "said nothing to our greeting")
        if filters:
            client.subscribe([(each, 1) for each in filters])
            self._await(lambda: bool(self._granted), "did not answer our subscription")
            self.refused = [each for each, granted in zip(filters, self._granted, strict=False) if not granted]

    def run(self, timeout_s: float) -> list[Message]:
        """Return what arrived, as soon as something did; wait at most `timeout_s`. Raise `BrokerDown`."""
        try:
            self._receive(timeout_s)
        except BrokerDown:
            if not self._inbox:
                raise
            # What came before the end is good; the next call raises.
        arrived, self._inbox = self._inbox, []
        return arrived

    def acknowledge(self, messages: Iterable[Message]) -> None:
        """Let the broker forget these."""
        client = self._opened()
        for message in messages:
            if message.qos:
                client.ack(message.number, message.qos)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> paho.MQTTMessageInfo:
        """Hand a message over to be sent; with QoS 1, what this returns tells when the broker has it."""
        return self._opened().publish(topic, payload, qos=qos, retain=retain)

    def flush(self, timeout_s: float) -> bool:
        """Whether the broker has everything that was published with QoS 1; wait for that. Raise `BrokerDown`."""
        client = self._opened()
        ends_s = time.monotonic() + timeout_s
        while client.want_write() or client._out_messages:  # paho has no other way to ask
            if (rest_s := ends_s - time.monotonic()) <= 0:
                return False
            self._look(min(rest_s, 1.0))
        return True

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Want no more of these, which a session of ours may have subscribed to long ago."""
        if filters:
            self._opened().unsubscribe([*filters])

    def close(self) -> None:
        """Take leave, so that the broker does not speak our will."""
        client, self._client = self._client, None
        if client is None:
            return
        if client.is_connected():
            client.disconnect()
            client.loop(0.1)  # the farewell has to get out
        client.on_disconnect = None
        client._reset_sockets()  # else it closes them only when it is collected
        self._inbox = []

    def _receive(self, timeout_s: float) -> None:
        ends_s = time.monotonic() + timeout_s
        while not self._inbox:
            rest_s = ends_s - time.monotonic()
            self._look(max(0.0, rest_s))
            if rest_s <= 0:
                break
        seen = -1
        while seen < len(self._inbox) < _MOST_A_LOOK:  # what is here already comes along
            seen = len(self._inbox)
            self._look(0.0)

    def _look(self, timeout_s: float) -> None:
        """Look at the network once."""
        client = self._opened()
        failed = client.loop(timeout_s)
        if self._connected:
            raise self._turned_away(self._connected)
        if failed or self._lost:
            raise self._gone()

    def _await(self, answered: Callable[[], bool], what: str) -> None:
        ends_s = time.monotonic() + _ANSWER_S
        while not answered():
            if (rest_s := ends_s - time.monotonic()) <= 0:
                raise BrokerDown(f"{self.where} {what} within {_ANSWER_S:g} s", "see that an MQTT broker listens there")
            self._look(rest_s)

    def _opened(self) -> paho.Client:
        if self._client is None:
            raise BrokerDown("the connection is not open", "open it first")
        return self._client

    # What paho calls, from inside `loop()`.

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        self.session_kept = bool(flags.session_present)
        self._connected = int(reason.value)

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._lost = str(reason)

    def _on_subscribe(self, _client: Any, _data: Any, _number: int, reasons: list[Any], _properties: Any) -> None:
        self._granted = [not reason.is_failure for reason in reasons]

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no configured topic; it is counted as unknown like any other
        self._inbox.append(
            Message(topic, bytes(message.payload), message.retain, message.dup, message.qos, message.mid)
        )

    # What can be wrong, in words.

    def _password(self) -> str:
        variable = self._broker.password_env
        password = os.environ.get(variable, "").strip() if variable else ""
        if variable and not password:
            raise BrokerDown(
                f"the environment variable {variable} is not set",
                "put the broker's password into it or into .env, or correct password_env",
                lasting=True,
            )
        logs.hide(password)
        return password

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._broker.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise BrokerDown(
                f"the certificate {self._broker.ca_file} cannot be used ({error.strerror or error})",
                "let ca_file name the PEM file of the authority that signed the broker's certificate",
                lasting=True,
            ) from error
        context.sslsocket_class = _ClosedWhenItFails
        return context

    def _unreachable(self, error: Exception) -> BrokerDown:
        match error:
            case socket.gaierror():
                return BrokerDown(f"the name {self._broker.host} is not known", "correct host, or mend the name server")
            case ssl.SSLCertVerificationError():
                what_now = "let ca_file name the authority that signed it, and host be the name in it"
                return BrokerDown(f"{self.where} shows a wrong certificate ({error.verify_message})", what_now)
            case ssl.SSLError() | ConnectionResetError() if self._broker.tls:
                return BrokerDown(
                    f"{self.where} does not speak TLS there", "correct port (8883 is usual) or set tls = false"
                )
            case ConnectionRefusedError():
                return BrokerDown(
                    f"nothing listens at {self._broker.host} port {self._broker.port}",
                    "start the broker, or correct host and port",
                )
            case TimeoutError():
                return BrokerDown(f"{self.where} does not answer", "see that it is on and that no firewall is between")
        return BrokerDown(f"{self.where} cannot be reached ({error})", "correct host and port, or mend the network")

    def _gone(self) -> BrokerDown:
        if self._connected is None:
            what_now = "if it wants TLS, set tls = true; if it does not, look into its log"
            return BrokerDown(f"{self.where} hung up before it had greeted us", what_now)
        if "Keep alive" in self._lost:
            return BrokerDown(f"{self.where} does not answer any more", "it is tried again by itself; see that it runs")
        what_now = f"it is tried again by itself; see that it runs, and that nobody else uses the id {self._client_id}"
        return BrokerDown(f"{self.where} closed the connection", what_now)

    def _turned_away(self, reason: int) -> BrokerDown:
        if reason in _BAD_CREDENTIALS:
            what_now = "correct username and the password that password_env names"
            return BrokerDown(f"{self.where} refuses this user or password", what_now, lasting=True)
        if reason == _UNAVAILABLE:
            return BrokerDown(f"{self.where} is not available just now", "it is tried again by itself")
        return BrokerDown(
            f"{self.where} refuses the connection (code 0x{reason:02x})", "look into the broker's own log"
        )
