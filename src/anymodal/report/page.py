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
from anymodal.report import comparison, figures, readings, wording
from anymodal.report.evidence import Evidence, SummaryRow, read_evidence
from anymodal.report.palette import css_variables
from anymodal.report.svg import inline_svg
from anymodal.report.tables import accuracy, answers, class_f1, drawn_counts
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
    for way in figures.WAYS:
        drawn[f"retrieval-{way}"] = figures.retrieval_figure(scores, chosen, [way])
    for target in MODALITIES:
        for regime in REGIMES:
            if len(answers(evidence.predictions, "MMT", regime, target)):
                drawn[f"confusion-{regime}-{target}"] = figures.confusion_figure(
                    evidence.predictions, classes, "MMT", regime, target
                )
        drawn[f"classes-{target}"] = figures.class_f1_figure(evidence.predictions, classes, target)
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
        "things": figures.THINGS,
        "targets": MODALITIES,
        "regimes": REGIMES,
        "systems": [s for s in SYSTEMS if any(key[0] == s for key in scores)],
        "cells": {key: _cell(row, key[2]) for key, row in scores.items()},
        "test_rows": _test_rows(scores),
        "findings": comparison.findings(evidence, scores),
        "differences": comparison.differences(evidence, scores),
        "score_words": {t: wording.scores_reading(scores, t) for t in MODALITIES},
        "retrieval_words": readings.retrieval_reading(evidence),
        "axis_words": readings.axis_words(low),
        "ways": figures.WAY_NAMES,
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
        "sampling": _sampling(evidence, scores),
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
    parts = [(other, figures.THINGS[wording.OTHER[target]]), (own, figures.THINGS[target])]
    return {
        "score": f"{row.mean:.3f}{spread}",
        "rows": "from " + " + ".join(f"{count:,} {things}" for count, things in parts if count),
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
        heads.append([(figures.THINGS.get(text, text), span) for text, span in spans])
    return heads


def _sampling(evidence: Evidence, scores: wording.Scores) -> str:
    """How far so few test rows pin the scores down: what the spread over seeds leaves out."""
    parts = []
    for target in MODALITIES:
        row = scores.get(("MMT", "zero-shot", target))
        rows = answers(evidence.predictions, "MMT", "zero-shot", target)
        if row is None or not row.test_rows or rows.empty:
            continue
        right = accuracy(rows)
        # of a binomial share; rows of one recording are not independent, hence "at least"
        error = 1.96 * math.sqrt(right * (1 - right) / row.test_rows)
        parts.append(
            f"{wording.percent(right)} of {row.test_rows:,} {figures.THINGS[target]}, "
            f"at least ±\N{NO-BREAK SPACE}{100 * error:.0f} points"
        )
    return "; ".join(parts)


def _labels(evidence: Evidence, scores: wording.Scores) -> dict[str, str]:
    """What a screen reader says of each figure."""
    labels = {}
    for target in MODALITIES:
        things = figures.THINGS[target]
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
    for way, name in figures.WAY_NAMES.items():
        numbers = "; ".join(
            f"{wording.pair_words(e.pair)} {getattr(e, way):.3f}"
            for e in evidence.selection.ranking
        )
        labels[f"retrieval-{way}"] = f"Retrieval scores {name}: {numbers}."
    labels["training"] = "Validation loss by epoch, a line a seed."
    return labels


def _parameters(params: Params, pairing: str) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every parameter that a result depends on.

    The tracking section is left out: no result depends on it, and an address of a store may carry
    a password. So is the drawing from AudioSet's lists where nothing was filmed.
    """
    left_out = {"tracking"} | ({"audioset"} if pairing == "class" else set())
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
