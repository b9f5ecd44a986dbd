import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from appdata import CLASSES, item, reference

from anymodal.app import colours, words
from anymodal.app.answer_view import answer_html, error_html, waiting_html
from anymodal.app.map_view import MapView
from anymodal.app.previews import heard, seen
from anymodal.app.reason import query, reason
from anymodal.app.reason_view import no_reference_html, reason_html
from anymodal.app.timeline_view import stretches, timeline_html
from anymodal.items import Moment
from anymodal.report.palette import PALETTE, contrast

FITTED = {"calibration_rows": {"audio": 40, "image": 70}}


def parsed(html):
    """The elements of a fragment, which must be well-formed."""
    for entity in ("nbsp", "ldquo", "rdquo"):
        html = html.replace(f"&{entity};", " ")
    # HTML's void elements and bare attributes, as XML has them
    html = html.replace("<wbr>", "").replace("<br>", "").replace(" controls ", ' controls="" ')
    html = html.replace(" checked>", ' checked="">')
    for name in ("img", "input"):
        parts = html.split(f"<{name} ")
        html = parts[0] + "".join(f"<{name} {part.replace('>', '/>', 1)}" for part in parts[1:])
    return ET.fromstring(f"<div>{html}</div>")


def said(html):
    return " ".join(" ".join(parsed(html).itertext()).replace("\N{NO-BREAK SPACE}", " ").split())


def test_a_known_sound():
    moments, answer = item((1, True))
    html = answer_html(answer, moments, "tone.wav", 100, FITTED)
    text = said(html)
    assert "tone.wav banjo 70 % Judged by the sound." in text
    assert "Calibrated on 40 sounds and 70 pictures" in text
    assert "What it heard" in text
    assert "Over time" not in text
    assert [b.text for b in parsed(html).iter("span") if b.get("class") == "am-name"] == [*CLASSES]


def test_an_unknown_picture_says_what_that_means():
    moments, answer = item((1, False), kind="image")
    answer = replace(answer, novelty={"image": 2.5})
    text = said(answer_html(answer, moments, "x.png", 100, FITTED))
    assert "x.png unknown Judged by the picture. It is probably none of the 3 instruments" in text
    assert "picture 2.5 times the limit" in text
    assert "which of the 3 it would be if it had to be one" in text
    assert "Calibrated" not in text


def test_silence_is_told_as_silence():
    moments, answer = item((1, False))
    silent = replace(moments, moments=(Moment(0.0, 1.0, audio=np.zeros(100, np.float32)),))
    assert "it is silent" in said(answer_html(answer, silent, "x", 100, {}))


def test_names_from_outside_stay_text():
    moments, answer = item((1, True))
    name = "<img src=x onerror=alert(1)>\"'${1+1}{{x}}.wav"
    html = answer_html(answer, moments, name, 100, {}) + error_html(name)
    assert "<img src=x" not in html
    assert "${" not in html
    assert said(html).count("${1+1}{{x}}.wav") == 2


def test_a_film_with_one_useless_modality():
    moments, answer = item((1, True), (1, True), kind="video")
    told = words.basis(replace(answer, modality="image"), moments)
    assert told.replace("\N{NO-BREAK SPACE}", " ") == (
        "Judged by the picture alone, 2 moments over 2 s: the sound is like nothing it was "
        "trained on."
    )
    only = replace(moments, moments=tuple(replace(one, audio=None) for one in moments.moments))
    assert "the film has nothing else" in words.basis(replace(answer, modality="image"), only)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (1.0, "> 99 %"),
        (0.991, "> 99 %"),
        (0.99, "99 %"),
        (0.5, "50 %"),
        (0.01, "1 %"),
        (0, "< 1 %"),
    ],
)
def test_no_probability_is_told_as_certain(share, told):
    assert words.percent(share).replace("\N{NO-BREAK SPACE}", " ") == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0 s"), (0.46, "0.5 s"), (8.04, "8 s"), (12.6, "13 s"), (185, "3 min 5 s")],
)
def test_lengths(value, told):
    assert words.seconds(value).replace("\N{NO-BREAK SPACE}", " ") == told


def test_a_timeline_tells_where_the_answer_changes():
    moments, answer = item((1, True), (1, True), (1, False), (1, False), (0.5, True))
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in stretches(answer, 4.5)]
    assert lines == [
        "0 s to 1 s: banjo", "1 s to 2 s: flute", "2 s to 4 s: unknown", "4 s to 4.5 s: flute",
    ]  # fmt: skip
    html = timeline_html(answer, moments.seconds)
    cells = list(parsed(html).iter("rect"))
    assert len(cells) == 3 * (5 + 2)
    widths = [float(c.get("width")[:-1]) for c in cells if not c.get("class")]
    assert sum(widths) == pytest.approx(300, abs=0.2)


def test_what_is_played_and_shown_is_bounded():
    moments, _ = item(*[(1, True)] * 40, kind="video")
    assert len(heard(moments, 100)) == 1500
    assert [one.start_s for one in seen(moments)] == [0, 13, 26, 39]
    still, _ = item((1, True), kind="image")
    assert len(heard(still, 100)) == 0
    assert len(seen(still)) == 1


@pytest.fixture(scope="module")
def rows():
    return reference()


def test_the_map_has_every_clip_and_the_item(rows):
    view = MapView(rows)
    plain = parsed(view.html())
    groups = [g for g in plain.iter("g") if g.get("data-class") is not None]
    assert sum(len(list(g.iter("circle"))) for g in groups) == 18
    assert sum(len(list(g.iter("rect"))) for g in groups) == 18
    assert {g.findtext("title") for g in groups} == {
        f"{name}, {what}" for name in CLASSES for what in ("sounds", "pictures")
    }
    vectors = {"audio": rows.vectors[0], "image": rows.vectors[20]}
    near = [
        c.neighbour for cs in reason(rows, query(vectors, "both"), 3, None).values() for c in cs
    ]
    full = view.html(vectors, near)
    text = said(full)
    assert "your sound" in text
    assert "your picture" in text
    rings = [c for c in parsed(full).iter("circle") if c.get("class") == "am-ring"]
    assert len(rings) == 6
    assert "item&#x27;s nearest sounds: banjo, " in full


def test_a_training_clip_is_drawn_where_its_own_vector_falls(rows):
    full = parsed(MapView(rows).html({"audio": rows.vectors[0]}))
    (cross,) = [e for e in full.iter("svg") if e.get("class") == "am-item"]
    marks = [(c.get("cx"), c.get("cy")) for c in full.iter("circle") if c.get("cx", "")[-1:] == "%"]
    assert (cross.get("x"), cross.get("y")) in marks


@pytest.mark.parametrize("count", [0, 1, 2])
def test_maps_of_hardly_any_clips(rows, count):
    few = type(rows)(rows.table.iloc[:count], rows.vectors[:count])
    html = MapView(few).html({"image": rows.vectors[3]})
    assert (html == "") == (count == 0)
    assert "nan" not in html


def test_an_item_far_outside_is_still_on_the_map(rows):
    full = parsed(MapView(rows).html({"image": 40 * rows.vectors[0]}))
    (cross,) = [e for e in full.iter("svg") if e.get("class") == "am-item"]
    assert all(0 <= float(cross.get(axis)[:-1]) <= 100 for axis in "xy")


def test_the_reason_counts_and_says_what_media_there_are(rows):
    _, answer = item((1, True))
    found = reason(rows, rows.vectors[0], 2, None)
    text = said(reason_html(answer, found, False))
    assert "4 of the 4 nearest clips are of banjo." in text
    assert "but no media" in text
    assert "not in the media folder" in said(reason_html(answer, found, True))
    assert "source toy" in text
    assert reason_html(answer, {"audio": [], "image": []}, True) == no_reference_html()


def test_the_facts_of_a_class_paired_classifier():
    facts = {
        "dataset": "toys",
        "pairing": "class",
        "train_rows": {"audio": 60, "image": 1100},
        "test_macro_f1_over_seeds": {"MMT/all/audio": 0.829, "MMT/all/image": 0.98},
    }
    assert words.facts(SimpleNamespace(classes=CLASSES, facts=facts)) == (
        "3 classes, chance 0.33; dataset toys; class-paired: a sound and a picture belong together "
        "by their label alone; trained on 60 labelled sounds and 1,100 labelled pictures; macro F1 "
        "on test rows (mean over seeds) 0.83 on sounds and 0.98 on pictures."
    )
    nothing = SimpleNamespace(classes=CLASSES, facts={})
    assert words.facts(nothing) == "3 classes, chance 0.33."


def test_before_the_first_item():
    assert said(waiting_html(CLASSES)).endswith("It knows banjo, flute, piano.")


def test_marks_stand_out_from_the_paper_in_both_themes():
    for theme in (0, 1):
        for pair in colours.SEQUENCE:
            assert contrast(pair[theme], PALETTE["paper"][theme]) > 1.5
    assert colours.colour_of(12) == "var(--am-class-2)"
