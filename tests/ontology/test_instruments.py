"""The 18 classes against the AudioSet ontology, and the names they are found by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anymodal.dataset.instruments import INSTRUMENTS, MIDS, canonical, mid, normalise, of_labels

ONTOLOGY = Path(__file__).parents[2] / "../shared/reference/audioset_ontology.json"
NODES = {
    "accordion": ["Accordion"],
    "banjo": ["Banjo"],
    "cello": ["Cello"],
    "clarinet": ["Clarinet"],
    "cymbals": ["Cymbal"],
    "drums": ["Drum kit", "Drum"],
    "flute": ["Flute"],
    "guitar": ["Guitar"],
    "mandolin": ["Mandolin"],
    "organ": ["Organ"],
    "piano": ["Piano"],
    "saxophone": ["Saxophone"],
    "synthesizer": ["Synthesizer"],
    "trombone": ["Trombone"],
    "trumpet": ["Trumpet"],
    "ukulele": ["Ukulele"],
    "violin": ["Violin, fiddle"],
    "voice": ["Choir"],
}
KAGGLE = (
    "Didgeridoo Tambourine Xylophone acordian alphorn bagpipes banjo|bongo drum|casaba castanets "
    "clarinet clavichord concertina drums dulcimer flute guiro guitar harmonica harp marakas "
    "ocarina piano saxaphone sitar|steel drum|trombone trumpet tuba violin"
)
KAGGLE_FOLDERS = [
    name
    for chunk in KAGGLE.split("|")
    for name in ([chunk] if chunk in ("bongo drum", "steel drum") else chunk.split())
]


def test_classes_are_the_papers():
    assert tuple(sorted(NODES)) == INSTRUMENTS and len(INSTRUMENTS) == 18


def test_mids_name_the_nodes_of_the_ontology():
    if not ONTOLOGY.is_file():
        pytest.skip("the AudioSet ontology is not beside the checkout")
    named = {node["name"]: node["id"] for node in json.loads(ONTOLOGY.read_text("utf-8"))}
    assert {name: [named[each] for each in NODES[name]] for name in NODES} == {
        name: list(mids) for name, mids in MIDS.items()
    }


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
        ("steel drum", None),
        ("bass guitar", None),
        ("keyboard", None),
        ("", None),
        ("s", None),
        ("--", None),
    ],
)
def test_canonical(name, expected):
    assert canonical(name) == expected


def test_kaggle_folders():
    assert len(KAGGLE_FOLDERS) == 30
    found = {name: canonical(name) for name in KAGGLE_FOLDERS}
    assert {name: known for name, known in found.items() if known} == {
        "acordian": "accordion",
        "banjo": "banjo",
        "clarinet": "clarinet",
        "drums": "drums",
        "flute": "flute",
        "guitar": "guitar",
        "piano": "piano",
        "saxaphone": "saxophone",
        "trombone": "trombone",
        "trumpet": "trumpet",
        "violin": "violin",
    }


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_class_finds_itself_in_any_spelling(name):
    for spelling in (name, name.upper(), name.title(), f" {name}_", f"{name}s"):
        assert canonical(spelling) == name
    assert mid(name) == MIDS[name][0]


def test_mid_of_the_unknown_is_none():
    assert mid("kazoo") is None


def test_normalise():
    assert normalise(" Hi-Hat__(closed)! ") == "hi hat closed"


def test_of_labels_wants_exactly_one_class():
    drum, kit = MIDS["drums"][1], MIDS["drums"][0]
    assert of_labels([drum]) == of_labels([kit]) == of_labels([drum, kit, "/m/04rlf"]) == "drums"
    assert of_labels([*MIDS["piano"], *MIDS["voice"]]) is None
    assert of_labels(["/m/04rlf"]) is None
    assert of_labels([]) is None
    assert of_labels(iter(MIDS["piano"])) == "piano"
