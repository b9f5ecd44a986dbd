"""The section on sources: sentences that hold whatever the numbers, tables, figure and page."""

import html
import re

import pytest

from anymodal.params import Params
from anymodal.report import build_report
from anymodal.report.across_figure import across_figure
from anymodal.report.across_readings import (
    across_headline,
    across_limit,
    across_reading,
    loss_rows,
    source_rows,
    sources_beside,
)
from anymodal.report.records import Across
from anymodal.storage import read_json, write_json

SPACE = "\N{NO-BREAK SPACE}"


@pytest.fixture
def told(typical):
    """`across.json` of the typical run, to be changed."""
    return read_json(typical.across / "across.json")


def record(told):
    return Across.model_validate(told)


def reading(told, target="audio"):
    return " ".join(across_reading(record(told).targets[target], target))


def levels(told, system, regime, within, matched, across, p_holm=0.002):
    """Put other numbers into `told`."""
    numbers = {"within": within, "matched": matched, "across": across}
    sounds = told["targets"]["audio"]
    for one in sounds["scores"]:
        if (one["system"], one["regime"]) == (system, regime):
            level = numbers[one["protocol"]]
            one |= {"mean": level, "low": level - 0.06, "high": level + 0.06}
    for one in sounds["differences"]:
        if (one["system"], one["regime"]) == (system, regime):
            lost = numbers[one["first"]] - numbers[one["second"]]
            one |= {"difference": lost, "p_holm": p_holm}


def test_a_fall_is_told_with_its_parts_its_sources_and_what_is_left_out(told):
    text = reading(told)
    assert text.startswith("150 sounds of 3 sources and 10 classes.")
    assert (
        "MMT zero-shot falls from 0.86 within sources to 0.30 across them (chance 0.100)." in text
    )
    assert "SMA falls from 0.54 within sources to 0.12 across them" in text
    assert "cannot be told from chance (0.100)" in text
    assert "Of the 0.560 that MMT zero-shot loses, 0.220 go to having fewer rows" in text
    assert "0.340 to their coming from other sources" in text
    # attic has too few rows to be named
    assert f"most rightly in hall (70{SPACE}%) and fewest in room (20{SPACE}%)" in text
    assert "15 rows of violin are left out of all three tests: all its sounds are of one" in text


def test_what_is_not_told_apart_is_not_called_a_fall(told):
    levels(told, "MMT", "zero-shot", 0.86, 0.86, 0.84, p_holm=0.4)
    text = reading(told)
    assert "MMT zero-shot cannot be told apart within sources (0.86) and across them (0.84)" in text
    assert "that MMT zero-shot loses" not in text


def test_a_rise_is_told_as_such(told):
    levels(told, "MMT", "zero-shot", 0.70, 0.72, 0.80)
    text = reading(told)
    assert "MMT zero-shot does not fall: 0.70 within sources, 0.80 across them" in text
    assert "loses" not in text


def test_a_part_that_is_no_loss_is_not_counted_as_one(told):
    levels(told, "MMT", "zero-shot", 0.60, 0.65, 0.40)
    text = reading(told)
    assert "Within sources, with as few rows to train on, it reaches 0.650." in text
    assert "go to having fewer rows" not in text


def test_below_chance_is_said(told):
    levels(told, "SMA", "all", 0.54, 0.27, 0.02)
    assert "SMA falls from 0.54 within sources to 0.02 across them, below chance" in reading(told)


@pytest.mark.parametrize("reason", ["all pictures are of one source (web)", "switched off"])
def test_what_is_not_measured_has_its_reason(told, reason):
    told["targets"]["image"]["missing"]["across"] = reason
    assert reading(told, "image") == f"On pictures there is no test across sources: {reason}."


def test_the_headline_and_the_limits_follow_what_was_measured(told):
    line = across_headline(record(told))
    assert line == (
        "Tested on sources that it never met, zero-shot reaches macro F1 0.30 on sounds "
        "(chance 0.10), against 0.86 where their sources are known from training."
    )
    limit = across_limit(record(told).targets)
    assert "how much it does on sounds is told under" in limit
    assert "How pictures from elsewhere would do is not known." in limit
    beside = sources_beside(record(told))
    assert beside.here == (
        "3 sources of sounds and 1 source of pictures, in training as well; "
        "also tested across sources"
    )
    told["targets"] = {m: {"missing": {"across": "switched off"}} for m in ("audio", "image")}
    assert across_headline(record(told)) == ""
    assert "How sounds and pictures from elsewhere would do is not known." in across_limit(
        record(told).targets
    )
    assert sources_beside(record(told)).here == "not measured"


def test_tables_hold_every_system_and_every_source(told):
    sounds = record(told).targets["audio"]
    rows = loss_rows(sounds)
    assert [row["system"][0] for row in rows] == [
        "MMT, zero-shot", "MMT, all data", "SMA, all data", "MMP, zero-shot", "MMP, all data",
    ]  # fmt: skip
    assert rows[0]["within"] == ("0.860", "0.80 to 0.92")
    assert rows[0]["lost"] == ("+0.560", "+0.49 to +0.63")
    assert [row["source"] for row in source_rows(sounds, "audio")] == ["hall", "room", "attic"]
    first = source_rows(sounds, "audio")[0]
    assert (first["within-0"], first["across-0"]) == (f"90{SPACE}%", f"70{SPACE}%")


def test_the_figure_marks_every_protocol(told):
    sounds = told["targets"]["audio"]
    (axes,) = across_figure(sounds["scores"], 0.1).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "MMT, zero-shot", "MMT, all data", "SMA, all data", "MMP, all data", "MMP, zero-shot",
    ]  # fmt: skip
    dots = [line for line in axes.get_lines() if line.get_marker() in ("o", "D")]
    drawn = {(round(float(x), 3), round(float(y))) for line in dots
             for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}  # fmt: skip
    assert {(0.86, 0), (0.64, 0), (0.30, 0)} <= drawn and len(drawn) == 15
    assert [text.get_text() for text in axes.texts][:3] == ["0.300", "0.310", "0.120"]
    assert across_figure([]).axes[0].get_yticklabels() == []


def test_the_page_has_both_protocols(typical_page):
    text = html.unescape(typical_page.read_text(encoding="utf-8"))
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
    section = plain[plain.index("What is left across sources") :]
    assert "MMT zero-shot falls from 0.86 within sources to 0.30 across them" in section
    assert "On pictures there is no test across sources: all pictures are of one source" in section
    assert "Tested on sources that it never met" in plain[: plain.index("Classes")]
    assert 'aria-label="Dot plot, tested on sounds.' in text


def test_a_page_without_the_measurement_says_why(copied):
    told = read_json(copied.across / "across.json")
    off = {"missing": {"across": "switched off (across.enabled)"}}
    told["targets"] = dict.fromkeys(("audio", "image"), off)
    write_json(copied.across / "across.json", told)
    text = build_report(copied, Params()).read_text(encoding="utf-8")
    assert "On sounds there is no test across sources: switched off (across.enabled)." in text
    assert "Tested on sources that it never met" not in text
