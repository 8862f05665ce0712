"""How often the writer commits and its files are written, where nobody says: by the kind of disk that this wears."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

_ON_A_CARD_S: Final = 10.0
_ELSEWHERE_S: Final = 1.0
_FILES_ON_A_CARD_S: Final = 60.0


def commit_interval_s(wanted: float | Literal["auto"], data_dir: Path) -> float:
    """What a power cut may cost: ten seconds on an SD card, which every commit wears, one elsewhere."""
    if wanted != "auto":
        return wanted
    return _ON_A_CARD_S if is_on_a_card(data_dir) else _ELSEWHERE_S


def file_interval_s(wanted: float | Literal["auto"], data_dir: Path) -> float:
    """How long what is committed may wait for its file: a minute on an SD card, 0 elsewhere."""
    if wanted != "auto":
        return wanted
    return _FILES_ON_A_CARD_S if is_on_a_card(data_dir) else 0.0


def is_on_a_card(path: Path) -> bool:
    """Whether a path lies on an SD or eMMC card, by the name of its block device."""
    existing = next(place for place in [path, *path.absolute().parents] if place.exists())
    device = existing.stat().st_dev
    return "mmcblk" in os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
