"""The messages that nobody has acknowledged yet: at most so many, and the newest total is always among them."""

import json

_MOST = 180
_OLDEST_MS = 6 * 86400000  # wattherd takes what is up to seven days old


class Backlog:
    """Each message is (number, instant, total, power or None). When there are too many, the densest ones are thinned.

    Only detail is lost by that: each total holds all pulses before it.
    """

    def __init__(self, device, boot, imp_per_kwh):
        self._common = {"device": device, "boot": boot, "imp_per_kwh": imp_per_kwh}
        self._messages = []
        self._number = 0

    def __len__(self):
        return len(self._messages)

    @property
    def first_number(self):
        return self._messages[0][0]

    @property
    def last_number(self):
        return self._messages[-1][0]

    def waiting_ms(self, now_ms):
        """How long the oldest message has been waiting."""
        return now_ms - self._messages[0][1] if self._messages else 0

    def add(self, at_ms, total, power_w):
        self._number += 1
        self._messages.append((self._number, at_ms, total, power_w))
        while len(self._messages) > 1 and at_ms - self._messages[0][1] > _OLDEST_MS:
            self._messages.pop(0)
        if len(self._messages) > _MOST:
            self._thin()

    def body(self, first, most, now_ms):
        """Return the oldest `most` messages from number `first` on as JSON, and the number of the last of them."""
        chosen = [message for message in self._messages if message[0] >= first][:most]
        said = [json.dumps(self._fields(message, now_ms)) for message in chosen]
        text = said[0] if len(said) == 1 else "[" + ",".join(said) + "]"
        return text.encode(), chosen[-1][0]

    def forget(self, first, last):
        self._messages = [message for message in self._messages if not first <= message[0] <= last]

    def _fields(self, message, now_ms):
        number, at_ms, total, power_w = message
        fields = dict(self._common)
        fields["seq"] = number
        fields["pulses_total"] = total
        fields["age_ms"] = now_ms - at_ms
        if power_w is not None:
            fields["power_w"] = power_w
        return fields

    def _thin(self):
        """Leave out the message whose neighbours are nearest to each other. The first and the last one stay."""
        messages = self._messages
        least, nearest_ms = 1, None
        for each in range(1, len(messages) - 1):
            apart_ms = messages[each + 1][1] - messages[each - 1][1]
            if nearest_ms is None or apart_ms < nearest_ms:
                least, nearest_ms = each, apart_ms
        messages.pop(least)
