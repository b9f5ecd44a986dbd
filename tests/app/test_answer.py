from dataclasses import replace

import numpy as np
import pytest

from anymodal.app.answer import answer_html, timeline
from anymodal.media.segmentation import Window
from helpers.appdata import CLASSES, item, text_of


def html_of(windows, answer, name="x"):
    facts = {"calibration_rows": {"audio": 40, "image": 70}}
    return answer_html(answer, windows, name, 100, facts)


def test_a_known_audio():
    html = html_of(*item((1, True)), name='<b>"tone".wav')
    text = text_of(html)
    assert '<b>"tone".wav banjo70 % Based on audio.' in text
    assert "40 audio clips and 70 images" in text
    assert "Over time" not in text
    assert all(name in text for name in CLASSES)
    assert html.count("<audio") == 1 and "<img" not in html and "silent or blank" not in html
    windows, answer = item((1, False))
    silent = replace(windows, windows=(Window(0.0, 1.0, audio=np.zeros(100, np.float32)),))
    assert "silent or blank" in html_of(silent, answer)


def test_an_unknown_image_shows_how_far_it_is_from_the_training_data():
    windows, answer = item((1, False), kind="image")
    html = html_of(windows, replace(answer, novelty={"image": 2.5, "audio": 0.5}))
    assert "unknown" in html and "Calibrated" not in html
    assert "the image to the training data: 2.5 times the limit" in text_of(html)
    assert html.count("<img") == 1


def test_a_video_with_one_modality_out_of_distribution():
    windows, answer = item((1, True), (1, False), kind="video")
    text = text_of(html_of(windows, replace(answer, modality="image")))
    assert "Based on image, 2 windows over 2 s. The audio is out of distribution" in text
    assert "1 of 2 windows are out of distribution" in text
    assert "audio and image" in text_of(html_of(windows, answer))


def test_the_timeline_covers_the_item_and_joins_windows_of_one_answer():
    windows, answer = item((1, True), (1, True), (1, False), (1, False), (0.5, True))
    parts = timeline(answer, 4.5)
    assert parts["stretches"] == [
        (0, 1, "banjo"), (1, 2, "flute"), (2, 4, "unknown"), (4, 4.5, "flute"),
    ]  # fmt: skip
    for _, cells in parts["rows"]:
        assert sum(width for _, width, _, _ in cells) == pytest.approx(100)
    html = html_of(windows, answer)
    assert html.count('class="am-ood"') == 3 * 2
    assert "2 s to 4 s: unknown" in text_of(html)
