"""The 18 classes against the AudioSet ontology, and the names they are found by."""

from __future__ import annotations

import pytest

from anymodal.ontology.graph import ontology
from anymodal.ontology.instruments import INSTRUMENTS, MIDS, canonical, mid, normalise, of_labels

NODES = {name: [name.capitalize()] for name in INSTRUMENTS} | {
    "cymbals": ["Cymbal"],
    "drums": ["Drum kit", "Drum"],
    "violin": ["Violin, fiddle"],
    "voice": ["Choir"],
}
"""Names of the classes' nodes."""


def test_classes_are_the_papers():
    assert tuple(sorted(INSTRUMENTS)) == INSTRUMENTS and len(INSTRUMENTS) == 18
    names = {name: [ontology().name(mid) for mid in mids] for name, mids in MIDS.items()}
    assert names == NODES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Violin, fiddle", "violin"),
        ("fiddle", "violin"),
        ("acoustic-guitar", "guitar"),
        ("Guitars", "guitar"),
        ("drum kit", "drums"),
        ("drum-set", "drums"),
        ("drumset", "drums"),
        ("DRUM_SETS", "drums"),
        ("Drum", "drums"),
        ("Choir", "voice"),
        ("singing voice", "voice"),
        ("sax", "saxophone"),
        ("keyboard synthesizer", "synthesizer"),
        ("  Pianos ", "piano"),
        ("Cymbal", "cymbals"),
        ("cellos", "cello"),
        ("acordian", "accordion"),
        ("saxaphone", "saxophone"),
        ("steel drum", None),
        ("bongo drum", None),
        ("bass guitar", None),
        ("keyboard", None),
        ("", None),
        ("s", None),
        ("--", None),
    ],
)
def test_canonical(name, expected):
    assert canonical(name) == expected


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_class_finds_itself_in_any_spelling(name):
    for spelling in (name, name.upper(), name.title(), f" {name}_", f"{name}s"):
        assert canonical(spelling) == name
    assert mid(name) == MIDS[name][0]


def test_normalise_and_unknown_names():
    assert mid("kazoo") is None
    assert normalise(" Hi-Hat__(closed)! ") == "hi hat closed"


def test_of_labels_wants_exactly_one_class():
    drum, kit = MIDS["drums"][1], MIDS["drums"][0]
    assert of_labels([drum]) == of_labels([kit]) == of_labels([drum, kit, "/m/04rlf"]) == "drums"
    assert of_labels([*MIDS["piano"], *MIDS["voice"]]) is None
    assert of_labels(["/m/04rlf"]) is None
    assert of_labels([]) is None
    assert of_labels(iter(MIDS["piano"])) == "piano"
