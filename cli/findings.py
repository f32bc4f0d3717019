"""What the doctor finds: how bad it is, what it is about, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """It works now, and will not under load, after a loss, or for others."""
    WRONG = "wrong"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `subject` is a word or two, `detail` a sentence, `cure` what to do, for warnings and what is wrong."""

    level: Level
    subject: str
    detail: str
    cure: str = ""


def ok(subject: str, detail: str) -> Finding:
    """Make a finding of what is as it should be."""
    return Finding(Level.OK, subject, detail)


def note(subject: str, detail: str, cure: str = "") -> Finding:
    """Make a finding of what is worth knowing."""
    return Finding(Level.NOTE, subject, detail, cure)


def warning(subject: str, detail: str, cure: str) -> Finding:
    """Make a finding of what will go wrong."""
    return Finding(Level.WARNING, subject, detail, cure)


def wrong(subject: str, detail: str, cure: str) -> Finding:
    """Make a finding of what does not work."""
    return Finding(Level.WRONG, subject, detail, cure)
