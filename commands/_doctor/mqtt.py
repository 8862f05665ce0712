"""A broker: the canary published below the house's own topics, and received by whoever listens there."""

from __future__ import annotations

import secrets
import time
from typing import Final

from commands._doctor import Finding, Mark
from commands._doctor.canary import DEVICE, METRIC, SOURCE, came_back, canary, unread
from config.settings import Site
from mqtt_helper import BrokerDown, Connection
from writer.outputs.mqtt import Options

_LOOK_S: Final = 0.2


def check_mqtt(part: str, options: Options, site: Site, within_s: float) -> list[Finding]:
    """Nothing is retained, nothing announced: Home Assistant does not hear of it, and nothing stays."""
    topic = f"{options.topic_prefix}/{site.name}/{SOURCE}/{DEVICE}/{METRIC}"
    payload = f"{canary().values[METRIC]:.0f}".encode()
    connection = Connection(options, f"wattherd-canary-{secrets.token_hex(4)}")
    try:
        connection.open([topic])
        connection.publish(topic, payload, qos=1)
        if not connection.flush(options.timeout_s):
            now = "see that it is not overloaded, and that this user may publish there"
            what = f"{connection.where} did not confirm a canary within {options.timeout_s:g} s"
            return [Finding(part, "canary.sent", Mark.WRONG, what, now)]
        if connection.refused:
            now = "for Home Assistant that is enough"
            return [unread(part, f"this user may not subscribe to {topic}", now)]
        ends_s = time.monotonic() + within_s
        while time.monotonic() < ends_s:
            arrived = connection.run(_LOOK_S)
            connection.acknowledge(arrived)
            if any((one.topic, one.payload) == (topic, payload) for one in arrived):
                return [came_back(part, f"{connection.where}, topic {topic}")]
    except BrokerDown as down:
        return [Finding(part, "canary.sent", Mark.WRONG, down.what, down.what_now)]
    finally:
        connection.close()
    what = f"{connection.where} took a canary and did not pass it on within {within_s:g} s"
    now = f"let this user write to and read {options.topic_prefix}/#, in the broker's access list"
    return [Finding(part, "canary.read", Mark.WRONG, what, now)]
