"""What a check finds, in plain sentences with their figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAULT", "FINE", "NOTE", "WARNING", "Finding"]

FINE, NOTE, WARNING, FAULT = "fine", "note", "warning", "fault"
"""How much a finding matters; with a fault a sort refuses the input."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    topic : what it is about, in one or two words.
    level : FINE, NOTE, WARNING or FAULT.
    text : one or two sentences.
    figures : numbers behind it, for scripts.
    """

    topic: str
    level: str
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
