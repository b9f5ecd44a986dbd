"""The report page: artifacts in, one self-contained HTML file out.

Nothing is fetched: style and figures are part of the file, which a content security policy in its
head enforces. The same artifacts and parameters give the same bytes.
"""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from anymodal.classification import SINGLE
from anymodal.encoders.base import MODALITIES
from anymodal.params import Params, Section
from anymodal.report import (
    across_readings,
    comparison,
    figures,
    judge_readings,
    names,
    readings,
    space_figures,
    space_readings,
    wording,
)
from anymodal.report.across_figure import across_figure
from anymodal.report.evidence import Evidence, read_evidence
from anymodal.report.judge_figures import reliability_figure
from anymodal.report.palette import css_variables
from anymodal.report.records import Comparison, SummaryRow
from anymodal.report.svg import inline_svg
from anymodal.report.tables import answers, class_f1, drawn_counts
from anymodal.storage import write_text
from anymodal.workspace import Workspace

SYSTEMS = ("SMA", "SMI", "MMT", "MMP")
REGIMES = ("zero-shot", "all")


def build_report(workspace: Workspace, params: Params, commit: str | None = None) -> Path:
    """Write the page to `workspace.report` and return its path.

    `commit`, where given, is printed as the code's version. Raises `AnymodalError`, naming the
    file and the stage to run, where an artifact is missing, unreadable or from another dataset.
    """
    evidence = read_evidence(workspace)
    write_text(workspace.report, render(evidence, params, commit))
    return workspace.report


def render(evidence: Evidence, params: Params, commit: str | None = None) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=PackageLoader("anymodal.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"pair": wording.pair_words, "listed": wording.listed}
    return environment.get_template("template.html.j2").render(**_context(evidence, params, commit))


def report_figures(evidence: Evidence) -> dict[str, Figure]:
    """Every figure of the page by its name, one panel each."""
    scores = [entry.model_dump() for entry in evidence.retrieval]
    chosen, classes = evidence.selection.pair, evidence.results.classes
    drawn: dict[str, Figure] = {}
    for target in MODALITIES:
        drawn[f"scores-{target}"] = figures.scores_figure(
            evidence.summary, evidence.outcomes, [target]
        )
    for way in names.WAYS:
        drawn[f"retrieval-{way}"] = figures.retrieval_figure(scores, chosen, [way])
    for target in MODALITIES:
        for regime in REGIMES:
            if len(answers(evidence.predictions, "MMT", regime, target)):
                drawn[f"confusion-{regime}-{target}"] = figures.confusion_figure(
                    evidence.predictions, classes, "MMT", regime, target
                )
        drawn[f"classes-{target}"] = figures.class_f1_figure(evidence.predictions, classes, target)
        single = evidence.outcomes[
            (evidence.outcomes["system"] == SINGLE[target])
            & (evidence.outcomes["target"] == target)
        ]["macro_f1"].to_list()
        drawn[f"mixing-{target}"] = space_figures.mixing_figure(
            evidence.curve, target, (SINGLE[target], single) if single else None
        )
    for name, found in evidence.across.targets.items():
        if found.measured:
            rows = [one.model_dump() for one in found.scores]
            drawn[f"across-{name}"] = across_figure(rows, found.chance)
    drawn["structure-pca"] = space_figures.structure_figure(evidence.spaces.reduced, "modality")
    drawn["structure-translated"] = space_figures.structure_figure(
        evidence.spaces.trained[0], "instrument"
    )
    drawn["labels"] = space_figures.labels_figure(
        evidence.spaces.label_counts, evidence.spaces.classes
    )
    for modality in evidence.judged.modalities:
        drawn[f"reliability-{modality}"] = reliability_figure(
            evidence.judged.model_dump(), [modality]
        )
    drawn["training"] = figures.training_figure(_losses(evidence))
    return drawn


def _context(evidence: Evidence, params: Params, commit: str | None) -> dict[str, Any]:
    scores = wording.scores_of(evidence.results.summary)
    labels = _labels(evidence, scores)
    svgs = {
        name: Markup(inline_svg(figure, name, labels.get(name, name)))
        for name, figure in report_figures(evidence).items()
    }
    counts = drawn_counts(evidence.dataset.account)
    low, _ = figures.retrieval_limits([entry.model_dump() for entry in evidence.retrieval])
    ends = {
        (one.system, one.regime, one.target): f"{one.low:.2f} to {one.high:.2f}"
        for one in evidence.results.intervals
        if one.low is not None and one.high is not None
    }
    seeds = max((row.seeds for row in scores.values()), default=0)
    return {
        "css": Markup(_css()),
        "evidence": evidence,
        "dataset": evidence.dataset,
        "results": evidence.results,
        "commit": commit,
        "seeds": seeds,
        "spread": wording.spread_words(seeds),
        "headlines": [wording.headline(scores, target) for target in ("image", "audio")],
        "pairing": wording.pairing_words(evidence.dataset.pairing),
        "labels_seen": readings.labels_seen(counts) if evidence.dataset.pairing == "class" else "",
        "chances": sorted({f"{row.chance:.3f}" for row in scores.values()}),
        "things": names.THINGS,
        "targets": MODALITIES,
        "regimes": REGIMES,
        "systems": [s for s in SYSTEMS if any(key[0] == s for key in scores)],
        "cells": {
            key: _cell(row, key[2]) | {"interval": ends.get(key, "")} for key, row in scores.items()
        },
        "shares": [
            space_readings.share_reading(share, target)
            for target, share in evidence.results.zero_shot_share.items()
        ],
        "compared": [_compared(one) for one in evidence.results.comparisons],
        "mixing_words": {
            t: space_readings.mixing_reading(evidence.curve, scores, t) for t in MODALITIES
        },
        "draws": int(evidence.curve["draw"].nunique()),
        "across": evidence.across.targets,
        "across_headline": across_readings.across_headline(evidence.across),
        "across_words": {
            t: across_readings.across_reading(found, t)
            for t, found in evidence.across.targets.items()
        },
        "across_lost": {
            t: across_readings.loss_rows(found) for t, found in evidence.across.targets.items()
        },
        "across_sources": {
            t: across_readings.source_rows(found, t) for t, found in evidence.across.targets.items()
        },
        "across_more": {
            t: across_readings.listed_sources(found.by_source)
            for t, found in evidence.across.targets.items()
        },
        "across_systems": {
            t: [space_readings.system_words(key) for key in across_readings.shown_systems(t)]
            for t in evidence.across.targets
        },
        "across_limit": across_readings.across_limit(evidence.across.targets),
        "structure_words": space_readings.structure_reading(evidence.spaces),
        "labels_words": space_readings.labels_reading(
            evidence.spaces.correlations, len(evidence.spaces.classes)
        ),
        "calibration_words": {
            m: judge_readings.calibration_reading(found, m)
            for m, found in evidence.judged.modalities.items()
        },
        "unknown_words": judge_readings.unknown_reading(evidence.judged),
        "fusion_words": judge_readings.fusion_reading(evidence.judged.fusion),
        "test_rows": _test_rows(scores),
        "findings": comparison.findings(evidence, scores),
        "differences": [
            *comparison.differences(evidence, scores),
            across_readings.sources_beside(evidence.across),
        ],
        "score_words": {t: wording.scores_reading(scores, t) for t in MODALITIES},
        "retrieval_words": readings.retrieval_reading(evidence),
        "axis_words": readings.axis_words(low),
        "ways": names.WAY_NAMES,
        "class_words": {
            (regime, target): readings.classes_reading(
                evidence.predictions, evidence.results.classes, target, regime, counts
            )
            for target in MODALITIES
            for regime in REGIMES
        },
        "class_table": _class_table(evidence),
        "training_words": readings.training_reading(
            evidence.trainings, params.translate.max_epochs
        ),
        "svgs": svgs,
        "counts": counts,
        "count_heads": _count_heads(counts),
        "pairing_limit": wording.pairing_limit(evidence.dataset.pairing),
        "skew": readings.skew_words(counts),
        "failed_checks": [c for c in evidence.checks or () if not c.passed],
        "parameters": _parameters(params, evidence.dataset.pairing),
    }


def _css() -> str:
    variables = {
        theme: " ".join(f"{name}: {colour};" for name, colour in names.items())
        for theme, names in css_variables().items()
    }
    sheet = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return (
        f":root {{ color-scheme: light dark; {variables['light']} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables['dark']} }} }}\n"
        f"{sheet}"
    )


def _cell(row: SummaryRow, target: str) -> dict[str, str]:
    spread = f" ± {row.std:.3f}" if row.seeds > 1 else ""
    own, other = row.train_rows_of_target, row.train_rows - row.train_rows_of_target
    parts = [(other, names.THINGS[wording.OTHER[target]]), (own, names.THINGS[target])]
    return {
        "score": f"{row.mean:.3f}{spread}",
        "rows": "from " + " + ".join(f"{count:,} {things}" for count, things in parts if count),
    }


def _compared(one: Comparison) -> dict[str, str]:
    """One tested difference as cells of a table."""
    interval = "" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}"
    return {
        "first": space_readings.system_words(one.first),
        "second": space_readings.system_words(one.second),
        "target": names.THINGS.get(one.target, one.target),
        "difference": f"{one.difference:+.3f}",
        "interval": interval,
        "p": "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}",
        "verdict": space_readings.comparison_words(one),
    }


def _test_rows(scores: wording.Scores) -> dict[str, str]:
    """Test rows and chance of each target modality."""
    found: dict[str, str] = {}
    for (_, _, target), row in scores.items():
        found.setdefault(target, f"{row.test_rows:,} test rows, chance {row.chance:.3f}")
    return found


def _losses(evidence: Evidence) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (run.seed, number, epoch.valid_loss)
            for run in evidence.trainings.seeds
            for number, epoch in enumerate(run.history, 1)
        ],
        columns=["seed", "epoch", "valid_loss"],
    )


def _class_table(evidence: Evidence) -> pd.DataFrame:
    """F1 of each class by target, system and regime, as text."""
    columns = {}
    for target in MODALITIES:
        for system, regime in (("MMT", "zero-shot"), ("MMT", "all"), (SINGLE[target], "all")):
            rows = answers(evidence.predictions, system, regime, target)
            if len(rows):
                name = f"{system} {'zero-shot' if regime == 'zero-shot' else 'all data'}"
                columns[target, name] = class_f1(rows, evidence.results.classes).map(
                    lambda value: "–" if math.isnan(value) else f"{value:.2f}"
                )
    return pd.DataFrame(columns).fillna("–")


def _count_heads(counts: pd.DataFrame) -> list[list[tuple[str, int]]]:
    """Header rows of the count table: (text, columns spanned) by modality, subset and split."""
    columns = [tuple(map(str, column)) for column in counts.columns]
    heads = []
    for depth in (1, 2, 3):
        groups = groupby(column[:depth] for column in columns)
        spans = [(key[-1], len(list(same))) for key, same in groups]
        heads.append([(names.THINGS.get(text, text), span) for text, span in spans])
    return heads


def _labels(evidence: Evidence, scores: wording.Scores) -> dict[str, str]:
    """What a screen reader says of each figure."""
    labels = {}
    for target in MODALITIES:
        things = names.THINGS[target]
        words = " ".join(wording.scores_reading(scores, target))
        labels[f"scores-{target}"] = f"Bar chart of macro F1 tested on {things}. {words}"
        labels[f"classes-{target}"] = (
            f"Chart of F1 by instrument, tested on {things}; the numbers are in the table below."
        )
        for regime in REGIMES:
            words = " ".join(
                readings.classes_reading(
                    evidence.predictions, evidence.results.classes, target, regime
                )
            )
            labels[f"confusion-{regime}-{target}"] = f"Confusion matrix, {things}. {words}"
    for way, name in names.WAY_NAMES.items():
        numbers = "; ".join(
            f"{wording.pair_words(e.pair)} {getattr(e, way):.3f}"
            for e in evidence.selection.ranking
        )
        labels[f"retrieval-{way}"] = f"Retrieval scores {name}: {numbers}."
    for target in MODALITIES:
        words = " ".join(space_readings.mixing_reading(evidence.curve, scores, target))
        labels[f"mixing-{target}"] = f"Box plots, tested on {names.THINGS[target]}. {words}"
    for name, tested in evidence.across.targets.items():
        words = " ".join(across_readings.across_reading(tested, name))
        labels[f"across-{name}"] = f"Dot plot, tested on {names.THINGS[name]}. {words}"
    words = " ".join(space_readings.structure_reading(evidence.spaces))
    labels["structure-pca"] = f"Matrix of distances between classes after PCA. {words}"
    labels["structure-translated"] = f"The same after translation. {words}"
    for modality, found in evidence.judged.modalities.items():
        words = " ".join(judge_readings.calibration_reading(found, modality))
        labels[f"reliability-{modality}"] = (
            f"Accuracy by confidence, tested on {names.THINGS[modality]}. {words}"
        )
    labels["labels"] = "Bar chart of clips by instrument that trained the translation."
    labels["training"] = "Validation loss by epoch, a line a seed."
    return labels


def _parameters(params: Params, pairing: str) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every parameter that a result depends on.

    The sections of tracking and tuning are left out: no result depends on them, and an address of
    a store may carry a password. So is the drawing from AudioSet's lists where nothing was filmed.
    """
    left_out = {"tracking", "tune"} | ({"audioset"} if pairing == "class" else set())
    found = []
    for name, field in type(params).model_fields.items():
        value = getattr(params, name)
        if name in left_out:
            continue
        if isinstance(value, Section):
            for inner, described in type(value).model_fields.items():
                found.append((f"{name}.{inner}", getattr(value, inner), described.description))
        else:
            found.append((name, value, field.description))
    return [(name, _value(value), meaning or "") for name, value, meaning in found]


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)
