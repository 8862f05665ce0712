"""Takes out of a text what nobody else may read: known secrets in whatever dress, and what looks like one.

It errs on the side of silence: a word too many is masked rather than one too few.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "***"
_LEAST: Final = 4  # characters; a shorter one would take half of every text with it
# What stands before a secret: a key of a table, a header, a field of JSON, an option of a command. One word follows, or
# all that is left of the line where a person chose the words.
_OF_A_WORD: Final = r"token|api_?key|local_?key|key|auth|authorization|credentials?|cookie"
_OF_A_LINE: Final = r"passw(?:or)?d|passphrase|pwd|pass|psk|secret|e?ssid|network[ _]name"
_BETWEEN: Final = r"""(?P<between>["']?\s*(?:=>|[:=])\s*)"""
_QUOTED: Final = r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'"""
_NAMED: Final = re.compile(
    rf"""(?i)(?P<name>(?<![a-z0-9])(?:[a-z0-9_-]*[_-])?(?:{_OF_A_WORD})){_BETWEEN}(?P<value>{_QUOTED}|[^\s,;&"'\]}})]+)"""
)
_CHOSEN: Final = re.compile(
    rf"""(?i)(?P<name>(?<![a-z0-9])(?:[a-z0-9_-]*[_-])?(?:{_OF_A_LINE})){_BETWEEN}(?P<value>{_QUOTED}|[^,;&"'\]}})\n]+)"""
)
_SAYS: Final = re.compile(r"(?i)\b(Token|Bearer|Basic)\s+(?!\*\*\*)[A-Za-z0-9._~+/=-]{6,}")
_IN_URL: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"']+@")
_ENV_KEY: Final = re.compile(r"""(?m)(\b\w+_env["']?\s*[:=]\s*)(["'])(?![A-Z_][A-Z0-9_]*\2)[^"'\n]+\2""")
_SSID_WORD: Final = re.compile(r"(?i)\b(ssid|essid|network name)(\s+)(?:\"[^\"\n]+\"|'[^'\n]+'|[^\s,;]+)")
_MAC: Final = re.compile(
    r"(?<![0-9A-Fa-f:.-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:-])"
)
_BARE_MAC: Final = re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[A-Fa-f])[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_MAIL: Final = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_IPV4: Final = re.compile(r"(?<![0-9.=v])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])")
_SERIAL: Final = re.compile(r"(?im)^(Serial\s*:\s*)\S+")


class Masking:
    """Masks texts of one bundle: the same address gets the same name in all of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        dressed = {variant for secret in secrets for variant in dresses(secret)}
        self._secrets = sorted((one for one in dressed if len(one) >= _LEAST), key=len, reverse=True)
        self._names: dict[str, str] = {}
        self.count = 0

    def mask(self, text: str) -> str:
        """Return the text without them.

        >>> print(Masking(["hunter22"]).mask("url = http://me:pw@nas/ token=abc123 said hunter22 to 00:11:22:33:44:5a"))
        url = http://***@nas/ token=*** said *** to mac-1
        """
        for secret in self._secrets:
            self.count += text.count(secret)
            text = text.replace(secret, MASK)
        text = self._sub(_IN_URL, rf"\1{MASK}@", text)
        text = self._sub(_ENV_KEY, rf"\1\2{MASK}\2", text)
        text = self._sub(_SAYS, rf"\1 {MASK}", text)
        text = _NAMED.sub(self._named, _CHOSEN.sub(self._named, text))
        text = self._sub(_SSID_WORD, rf"\1\2{MASK}", text)
        text = self._sub(_SERIAL, rf"\1{MASK}", text)
        text = _MAC.sub(lambda found: self._name("mac", found[0].lower().replace("-", ":")), text)
        text = _BARE_MAC.sub(lambda found: self._name("mac", _with_colons(found[0])), text)
        text = self._sub(_MAIL, f"{MASK}@{MASK}", text)
        return _IPV4.sub(self._address, text)

    def _sub(self, pattern: re.Pattern[str], by: str, text: str) -> str:
        text, count = pattern.subn(by, text)
        self.count += count
        return text

    def _named(self, found: re.Match[str]) -> str:
        value = found["value"]
        quote_ = value[0] if value[0] in "\"'" else ""
        if value.strip("\"'") in ("", MASK, "null", "none", "None", "true", "false"):
            return found[0]
        self.count += 1
        return f"{found['name']}{found['between']}{quote_}{MASK}{quote_}"

    def _address(self, found: re.Match[str]) -> str:
        try:
            is_global = ipaddress.ip_address(found[0]).is_global
        except ValueError:
            return found[0]
        return self._name("public-address", found[0]) if is_global else found[0]

    def _name(self, kind: str, of: str) -> str:
        """Give each one a name of its own, so that it is still seen who is who."""
        self.count += 1
        number = sum(name.startswith(f"{kind}-") for name in self._names.values()) + 1
        return self._names.setdefault(of, f"{kind}-{number}")


def dresses(secret: str) -> Iterator[str]:
    """Yield how a secret may stand in a text: as it is, in JSON, in a URL, in base64.

    >>> [*dresses('a"b c')]
    ['a"b c', 'a\\\\"b c', 'a%22b%20c', 'a%22b+c', 'YSJiIGM=', 'YSJiIGM']
    """
    encoded = base64.b64encode(secret.encode()).decode()
    forms = (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret), encoded, encoded.rstrip("="))
    yield from dict.fromkeys(forms)


def _with_colons(text: str) -> str:
    return ":".join(re.findall("..", text.lower()))
