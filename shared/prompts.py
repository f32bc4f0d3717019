"""Turns what a caller wrote into the text that the model sees. Pure functions; `docs/prompts.md` is the manual.

A prompt is cut into parts at its commas. A part is a share of a colour (`50% red`) or free text. The shares of a prompt form
its mix and are checked under either policy; what is no palette colour is passed on with a warning (`lenient`) or refused
(`strict`). The model's template is put around the result once.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from shared.errors import PromptInvalid
from shared.manifest import Manifest
from shared.mix import Mix, Part, check_mix, parse_part, quote, split_parts
from shared.palette import Palette
from shared.tokens import MAX_TOKENS, START_AND_END, count_tokens

Policy = Literal["lenient", "strict"]

EXAMPLE = "'50% red, 30% black, 20% pearl'"
MAX_CHARACTERS = 2000
"""Far above what 77 tokens hold; bounds the work that a hostile text can cause."""


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """A prompt that can be rendered.

    `text` is what the caller wrote, unchanged; `mix` its shares, or None for free text alone; `prompt` the full text for
    the text encoders; `warnings` are sentences for the caller.
    """

    text: str
    mix: Mix | None
    prompt: str
    warnings: tuple[str, ...] = ()


def parse_prompt(text: str, manifest: Manifest, policy: Policy = "lenient") -> ParsedPrompt:
    """Read a caller's prompt for one model.

    Raises:
        PromptInvalid: it is empty, has control characters or the model's own tokens, its shares cannot be rendered, it
            takes more than 77 tokens, or (`strict`) it is anything but a mix of palette colours. `field` is "prompt".
    """
    body = _without_template(clean(text, field="prompt"), manifest)
    pieces = split_parts(body)
    if not pieces:
        raise PromptInvalid(f"the prompt is empty; write a mix such as {EXAMPLE}", field="prompt")
    parts = [parse_part(piece, manifest.colors) for piece in pieces]
    notes: list[str] = []
    if len(pieces) == 1 and (color := manifest.colors.find(pieces[0])):
        parts = [Part(color, color.name, 100.0)]
        notes.append(f"{quote(pieces[0])} was read as '{parts[0]}'")
    shares = [part for part in parts if part is not None]
    mix = check_mix(shares) if shares else None
    caption = ", ".join(str(part) if part else piece for piece, part in zip(pieces, parts, strict=True)) if mix else body
    prompt = _with_template(caption, manifest)
    check_length(prompt, manifest, field="prompt")
    known = _words_of_template(manifest)
    doubts = [
        _doubt(piece, part, manifest.colors)
        for piece, part in zip(pieces, parts, strict=True)
        if (part is None or part.color is None) and piece.casefold() not in known
    ]
    if doubts and policy == "strict":
        raise PromptInvalid("; ".join(doubts), field="prompt")
    return ParsedPrompt(text, mix, prompt, (*notes, *doubts))


def parse_negative_prompt(text: str, manifest: Manifest) -> str:
    """Return the negative prompt as the model sees it: spaces and characters normalised, nothing added; it may be empty.

    Raises:
        PromptInvalid: control characters, the model's own tokens, or more than 77 tokens. `field` is "negative_prompt".
    """
    negative = clean(text, field="negative_prompt")
    _refuse_own_tokens(negative, manifest, field="negative_prompt")
    check_length(negative, manifest, field="negative_prompt")
    return negative


def clean(text: str, *, field: str) -> str:
    """Normalise a caller's text: Unicode NFKC, every run of white space as one space, no invisible format characters.

    Raises:
        PromptInvalid: it is longer than `MAX_CHARACTERS` or holds control characters or half a surrogate pair.
    """
    if len(text) > MAX_CHARACTERS:
        raise PromptInvalid(f"{field} has {len(text)} characters; at most {MAX_CHARACTERS} are read", field=field)
    for position, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise PromptInvalid(
                f"{field} holds the control character U+{ord(character):04X} at position {position}", field=field
            )
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).split())


def check_length(text: str, manifest: Manifest, *, field: str) -> None:
    """Make sure that the text encoders read all of `text`, which is the full text with the template around it.

    Raises:
        PromptInvalid: it takes more than 77 tokens, start and end marks included; the detail has the counts.
    """
    count = count_tokens(text, _learned(manifest))
    if count > MAX_TOKENS:
        raise PromptInvalid(
            f"{field} takes {count} tokens, start, end and template included, and the model reads {MAX_TOKENS}: "
            f"leave out {count - MAX_TOKENS} or more (a percentage takes about 3, a word 1 or 2)",
            field=field,
        )


def _doubt(piece: str, part: Part | None, palette: Palette) -> str:
    """Say in one sentence why a piece is no share of a palette colour, and what may have been meant."""
    name = part.name if part else piece
    if palette.find(name):
        return f"{quote(name)} has no share; write one before it, as in '50% {name}'"
    meant = [quote(color.name) for color in palette.suggest(name)]
    hint = f"; did you mean {' or '.join(filter(None, (', '.join(meant[:-1]), meant[-1])))}?" if meant else ""
    if part:
        return f"{quote(name)} is no colour of the palette{hint}"
    return f"{quote(name)} is no share of a palette colour, as in {EXAMPLE}{hint}"


def _learned(manifest: Manifest) -> tuple[str, ...]:
    return manifest.textual_inversion.tokens if manifest.textual_inversion else ()


def _refuse_own_tokens(text: str, manifest: Manifest, *, field: str) -> None:
    """Refuse words with a meaning to the tokenizer: a stray `<s1>` or end mark moves what the encoders pool."""
    for token in (*START_AND_END, *_learned(manifest)):
        if token.lower() in text.lower():
            raise PromptInvalid(
                f"{field} holds {token}, a token of the model itself; leave it out, the template adds what is needed",
                field=field,
            )


def _pattern(text: str) -> re.Pattern[str]:
    """Match `text` whatever its case and spacing, but not inside a longer word."""
    words = r"\s*".join(re.escape(word) for word in re.findall(r"<[^<>\s]+>|,|[^\s,<]+|<", text))
    return re.compile(rf"(?<!\w)(?:{words})" + (r"(?!\w)" if text[-1:].isalnum() else ""), re.IGNORECASE)


def _sides(manifest: Manifest) -> tuple[str, str]:
    before, after = manifest.prompt.template.split("{prompt}")
    return before, after


def _words_of_template(manifest: Manifest) -> set[str]:
    return {piece.casefold() for side in _sides(manifest) for piece in split_parts(side)}


def _without_template(text: str, manifest: Manifest) -> str:
    """Take away what the template would add at the ends, so that a caller may send the bare mix or the full text.

    A trigger elsewhere in the text stays, in the manifest's spelling.
    """
    trigger = manifest.prompt.trigger
    pattern = _pattern(trigger)
    _refuse_own_tokens(pattern.sub(" ", text), manifest, field="prompt")
    if len(pattern.findall(text)) > 1:
        raise PromptInvalid(f"the prompt holds the trigger {trigger!r} more than once; leave it out", field="prompt")
    text = pattern.sub(lambda _: trigger, text).strip(" ,;")
    before, after = _sides(manifest)
    for end in (before, trigger, after):
        if (words := end.strip(" ,")) and (match := _pattern(words).search(text)):
            if end is not after and match.start() == 0:
                text = text[match.end() :].strip(" ,;")
            elif end is not before and match.end() == len(text):
                text = text[: match.start()].strip(" ,;")
    return text


def _with_template(caption: str, manifest: Manifest) -> str:
    """Put the template around the caption, leaving out a side whose words the caller has already written."""
    before, after = _sides(manifest)
    trigger = _pattern(manifest.prompt.trigger)
    if trigger.search(caption):
        before, after = (("" if trigger.search(side) else side) for side in (before, after))
    if after.strip(" ,") and _pattern(after.strip(" ,")).search(caption):
        after = ""
    return before + caption + after
