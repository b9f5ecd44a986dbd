"""The section on trust: calibration, fusion and what is called unknown, on the page."""

import html
import re

from anymodal.report.evidence import read_evidence
from anymodal.report.judge_readings import calibration_reading, fusion_reading, unknown_reading

SPACE = "\N{NO-BREAK SPACE}"


def test_the_page_says_how_far_an_answer_can_be_trusted(typical, typical_page):
    page = typical_page.read_text()
    (section,) = re.findall(r'<section id="trust">.*?</section>', page, flags=re.DOTALL)
    text = html.unescape(section)
    judged = read_evidence(typical).judged
    sentences = [*fusion_reading(judged.fusion), *unknown_reading(judged)]
    for modality, found in judged.modalities.items():
        sentences += calibration_reading(found, modality)
    assert len(sentences) > 8
    for sentence in sentences:
        assert sentence in text, sentence
    assert section.count("<svg") == 2 and section.count('aria-label="Accuracy by confidence') == 2
    for words in (
        "every sound with every picture", "not told apart from the better one alone (pictures)",
        f"90{SPACE}% of 50 noise, clicks and silence", f"98{SPACE}% of 50 plain colours",
        f"keep 95{SPACE}% of the validation rows", f"both together 97.0{SPACE}%",
    ):  # fmt: skip
        assert words in text, words
