"""What the page says of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anymodal.encoders.base import MODALITIES
from anymodal.items import Moments, is_blank
from anymodal.prediction import Prediction
from anymodal.report.wording import listed, plural

if TYPE_CHECKING:
    from anymodal.model import ModalityAgnosticClassifier

THING = {"audio": "sound", "image": "picture"}
THINGS = {"audio": "sounds", "image": "pictures"}
NBSP = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """A probability for people: never quite none and never quite certain."""
    if share > 0.99:
        return f">{NBSP}99{NBSP}%"
    return f"{100 * share:.0f}{NBSP}%" if share >= 0.01 else f"<{NBSP}1{NBSP}%"


def seconds(value: float) -> str:
    """`0.5 s`, `12 s`, `3 min 5 s`."""
    if value >= 60:
        whole = round(value)
        return f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"
    text = f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
    return f"{text}{NBSP}s"


def basis(answer: Prediction, item: Moments) -> str:
    """What an answer rests on, be it a class or `unknown`."""
    there = item.modalities()
    looked = len(item.moments)
    of = f", {plural(looked, 'moment')} over {seconds(item.seconds)}" if looked > 1 else ""
    if answer.modality == "both":
        return f"Judged by sound and picture together{of}."
    used = THING[answer.modality]
    if len(there) == 2:
        other = next(THING[m] for m in there if m != answer.modality)
        return f"Judged by the {used} alone{of}: the {other} is like nothing it was trained on."
    if item.kind == "video":
        return f"Judged by the {used} alone{of}: the film has nothing else."
    return f"Judged by the {used}{of}."


def unknown(answer: Prediction, item: Moments) -> str:
    """Why there is no answer, and what is shown instead."""
    parts = [part for moment in item.moments for m in MODALITIES
             if (part := moment.of(m)) is not None]  # fmt: skip
    forced = (
        f"The bars say which of the {len(answer.classes)} it would be if it had to be one of them."
    )
    if all(is_blank(part) for part in parts):
        what = {"audio": "silent", "image": "of one brightness all over"}
        found = listed([what[m] for m in item.modalities()])
        return f"There is nothing to go by: it is {found}. {forced}"
    far = {m: score for m, score in answer.novelty.items() if score > 1}
    scores = [f"{THING[m]} {score:.1f} times" for m, score in far.items()]
    limit = f" (distance to its training data: {listed(scores)} the limit)" if scores else ""
    return (
        f"It is probably none of the {len(answer.classes)} instruments that the classifier "
        f"knows{limit}. {forced}"
    )


def doubt(answer: Prediction) -> str:
    """How much of a known item is unlike what was trained on; empty if nothing is."""
    strange = sum(not one.known for one in answer.moments)
    if not answer.known or not strange:
        return ""
    return (
        f"{strange} of its {plural(len(answer.moments), 'moment')} "
        f"{'is' if strange == 1 else 'are'} like nothing it was trained on and did not count."
    )


def calibration(judge_facts: Mapping[str, Any]) -> str:
    """What the probabilities mean."""
    rows = judge_facts.get("calibration_rows")
    if not rows:
        return "Shares of the forest's trees; not calibrated."
    counts = listed([f"{rows[m]:,} {THINGS[m]}" for m in MODALITIES if m in rows])
    return (
        f"Calibrated on {counts} that it was not trained on: of the answers given with 80{NBSP}%, "
        f"about 80{NBSP}% should be right, for items like those."
    )


def facts(classifier: ModalityAgnosticClassifier) -> str:
    """What the classifier's answers rest on, in one line."""
    told, classes = classifier.facts, len(classifier.classes)
    said = [f"{plural(classes, 'class', 'classes')}, chance {1 / classes:.2f}"]
    if told.get("dataset"):
        said.append(f"dataset {told['dataset']}")
    pairing = {
        "class": "class-paired: a sound and a picture belong together by their label alone",
        "clip": "clip-paired: a sound and its picture are of one recording",
    }
    if told.get("pairing") in pairing:
        said.append(pairing[told["pairing"]])
    if rows := told.get("train_rows"):
        labelled = [f"{rows[m]:,} labelled {THINGS[m]}" for m in MODALITIES if m in rows]
        said.append(f"trained on {listed(labelled)}")
    scores = told.get("test_macro_f1_over_seeds") or {}
    tested = {m: scores.get(f"MMT/all/{m}") for m in MODALITIES}
    counts = [f"{score:.2f} on {THINGS[m]}" for m, score in tested.items() if score is not None]
    if counts:
        said.append(f"macro F1 on test rows (mean over seeds) {listed(counts)}")
    return "; ".join(said) + "."


def agreement(found: Sequence[str], best: str) -> str:
    """How many of the nearest clips' classes are the answer's."""
    same = sum(one == best for one in found)
    return f"{same} of the {plural(len(found), 'nearest clip')} {_is(same)} of {best}."


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
