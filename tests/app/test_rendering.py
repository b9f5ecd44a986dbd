import pytest

from anymodal.app.rendering import percent, render, seconds
from helpers.appdata import text_of


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (percent, 1.0, "> 99 %"), (percent, 0.991, "> 99 %"), (percent, 0.99, "99 %"),
        (percent, 0.01, "1 %"), (percent, 0, "< 1 %"),
        (seconds, 0, "0 s"), (seconds, 0.46, "0.5 s"), (seconds, 8.04, "8 s"),
        (seconds, 12.6, "13 s"), (seconds, 185, "3 min 5 s"),
    ],
)  # fmt: skip
def test_no_probability_is_certain_and_lengths_are_rounded(function, value, text):
    assert function(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_whatever_is_inserted_stays_text():
    message = "<img src=x onerror=alert(1)>\"'${1+1}{{x}}.wav"
    html = render("error", message=message)
    assert not any(part in html for part in ("<img", "${", "{{"))
    assert text_of(html).endswith(message)


def test_facts_name_dataset_pairing_rows_and_scores():
    facts = {"dataset": "toys", "pairing": "class", "train_rows": {"audio": 60, "image": 1100}}
    scores = {"MMT/all/audio": 0.829, "MMT/all/image": 0.98}
    text = text_of(render("facts", classes=3, facts=facts, scores=scores))
    expected = ("3 classes", "chance 0.33", "toys", "class-paired", "60", "1,100", "0.83", "0.98")
    assert [fact for fact in expected if fact not in text] == []
    assert text_of(render("facts", classes=3, facts={}, scores={})) == "3 classes, chance 0.33."
