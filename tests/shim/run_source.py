"""Runs sources in a process of its own, under the shim: a line in, a line out. `bench.py` is at the other end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import msgspec

    from workers import Source, SourceError, source_class

    source: Source | None = None
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        answer: dict[str, object] = {}
        if word == "make":
            table = json.loads(rest)
            kind = source_class(table["kind"])
            source = kind("shimmed", msgspec.convert(table, kind.Options))
        else:
            try:
                answer["readings"] = msgspec.to_builtins(getattr(source, word)())
            except SourceError as error:
                answer["error"] = [error.what, error.what_now]
        assert source
        answer |= {"troubles": source.troubles, "refused": dict(source.refused)}
        print(json.dumps(answer), flush=True)
