"""The paper's 18 instrument classes, their AudioSet nodes, and the names people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType

MIDS = MappingProxyType(
    {
        "accordion": ("/m/0mkg",),
        "banjo": ("/m/018j2",),
        "cello": ("/m/01xqw",),
        "clarinet": ("/m/01wy6",),
        "cymbals": ("/m/01qbl",),
        "drums": ("/m/02hnl", "/m/026t6"),
        "flute": ("/m/0l14j_",),
        "guitar": ("/m/0342h",),
        "mandolin": ("/m/04rzd",),
        "organ": ("/m/013y1f",),
        "piano": ("/m/05r5c",),
        "saxophone": ("/m/06ncr",),
        "synthesizer": ("/m/0l14qv",),
        "trombone": ("/m/07c6l",),
        "trumpet": ("/m/07gql",),
        "ukulele": ("/m/07xzm",),
        "violin": ("/m/07y_7",),
        "voice": ("/m/0l14jd",),
    }
)
"""Class → AudioSet nodes that stand for it, the first one where a single node is wanted.

Paper, section 3.1: "Violin, fiddle" is violin, "Choir" is voice, "Drum kit" and "Drum" are drums.
"""

INSTRUMENTS: tuple[str, ...] = tuple(MIDS)
"""The 18 classes, in alphabetical order."""

# Spellings as `normalise` returns them, beside the class's own name and plurals. Names with a
# different AudioSet node (bass guitar, electric piano, steel drum, keyboard) are missing on
# purpose: such a folder is a separate class.
_ALIASES = {
    "accordion": ("accordian", "acordian", "acordion", "accordeon", "piano accordion"),
    "banjo": ("five string banjo", "5 string banjo"),
    "cello": ("violoncello", "celli"),
    "clarinet": ("clarinette",),
    "cymbals": ("cymbal", "crash cymbal", "ride cymbal", "hi hat", "hihat"),
    "drums": ("drum", "drum kit", "drumkit", "drum set", "drumset", "trap set"),
    "flute": ("concert flute", "transverse flute"),
    "guitar": ("acoustic guitar", "classical guitar", "electric guitar"),
    "mandolin": ("mandoline",),
    "organ": ("pipe organ", "church organ", "electric organ", "electronic organ", "hammond organ"),
    "piano": ("acoustic piano", "grand piano", "upright piano", "pianoforte"),
    "saxophone": (
        "sax",
        "saxaphone",
        "alto sax",
        "alto saxophone",
        "baritone saxophone",
        "soprano saxophone",
        "tenor sax",
        "tenor saxophone",
    ),
    "synthesizer": ("synth", "synthesiser", "keyboard synthesizer", "synthesizer keyboard"),
    "trombone": ("slide trombone", "tenor trombone"),
    "ukulele": ("uke", "ukelele"),
    "violin": ("violin fiddle", "fiddle"),
    "voice": ("choir", "chorus", "human voice", "singer", "singing", "singing voice", "vocal"),
}
_NAMES = {name: name for name in INSTRUMENTS} | {
    alias: name for name, aliases in _ALIASES.items() for alias in aliases
}
_SEPARATORS = re.compile(r"[\W_]+")


def normalise(name: str) -> str:
    """Lower case, with single spaces for every run of punctuation, underscores and blanks."""
    return _SEPARATORS.sub(" ", name.casefold()).strip()


def canonical(name: str) -> str | None:
    """The class that `name` is a common spelling of, or None.

    Case, punctuation and plurals do not matter: "Violin, fiddle", "DRUM-SETS" and
    "acoustic_guitar" match. Only whole names do: "steel drum" is not a drum kit.
    """
    spelling = normalise(name)
    singulars = [spelling[: -len(ending)] for ending in ("es", "s") if spelling.endswith(ending)]
    return next((_NAMES[each] for each in (spelling, *singulars) if each in _NAMES), None)


def mid(name: str) -> str | None:
    """The AudioSet node of the class that `name` spells, or None."""
    instrument = canonical(name)
    return MIDS[instrument][0] if instrument else None


def of_labels(labels: Iterable[str]) -> str | None:
    """The class of a clip with these mids: the only class among them, None if none or several.

    Paper, section 3.1. A clip that is both "Drum" and "Drum kit" has one class.
    """
    present = set(labels)
    classes = [name for name, mids in MIDS.items() if not present.isdisjoint(mids)]
    return classes[0] if len(classes) == 1 else None
