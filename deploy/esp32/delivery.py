"""Brings the backlog to wattherd, oldest first, and forgets a message only when it was acknowledged."""

TAKEN = "taken"  # what became of a sending
REFUSED = "refused"  # the content is not liked: the same again would be refused again
FAILED = "failed"  # not taken this time

_MOST_AT_ONCE = 20
_FIRST_PAUSE_MS = 1000
_LONGEST_PAUSE_MS = 60000


class Delivery:
    """Sends through a link, which has `begin(compose)`, `step(now_ms)` and `close()`.

    A link calls `compose()` when it can send at once, so that the ages in the messages are right, and later returns
    from `step()` what became of it and why.
    """

    def __init__(self, backlog, link, uptime):
        self.trouble = "nothing was delivered yet"
        self._backlog = backlog
        self._link = link
        self._uptime = uptime
        self._is_sending = False
        self._sent = (0, 0)  # first and last number of what is on its way
        self._most = _MOST_AT_ONCE
        self._suspect = None  # the number of a message that was refused when it was alone
        self._due_ms = 0
        self._pause_ms = _FIRST_PAUSE_MS

    def step(self, now_ms):
        if not self._is_sending and len(self._backlog) and now_ms >= self._due_ms:
            self._is_sending = True
            self._link.begin(self._compose)
        outcome = self._link.step(now_ms)
        if outcome and self._is_sending:
            self._is_sending = False
            self._conclude(outcome[0], outcome[1], now_ms)
        elif outcome:
            self.trouble = outcome[1]  # a link that is kept broke while it had nothing to do

    def stop(self):
        """Give up what is on its way; go on at once with the next step."""
        self._link.close()
        self._is_sending = False
        self._due_ms = 0
        self._pause_ms = _FIRST_PAUSE_MS

    def _compose(self):
        first = self._backlog.last_number if self._suspect else self._backlog.first_number
        body, last = self._backlog.body(first, self._most, self._uptime.now_ms())
        self._sent = (first, last)
        return body

    def _conclude(self, what, why, now_ms):
        first, last = self._sent
        if what == TAKEN:
            self._backlog.forget(first, last)
            if self._suspect:
                # The newest one was taken and an older one was not: the fault is in that one, and its total in this.
                self._backlog.forget(self._suspect, self._suspect)
            self._suspect, self._most = None, _MOST_AT_ONCE
            self._pause_ms, self.trouble = _FIRST_PAUSE_MS, ""
            return
        self.trouble = why
        if what == REFUSED and self._most > 1:
            self._most = 1
            return
        if what == REFUSED and not self._suspect and last != self._backlog.last_number:
            self._suspect = last
            return
        self._suspect = None
        self._due_ms = now_ms + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, _LONGEST_PAUSE_MS)
