"""The report page: results in, one self-contained HTML file out.

Style and figures are part of the file, and a content security policy in its head forbids fetching
anything. The same results and parameters give the same bytes.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from anymodal.config.params import Params, Section
from anymodal.core.modality import MODALITIES, OTHER
from anymodal.core.storage import write_text
from anymodal.core.workspace import Workspace
from anymodal.data.clips import SPLITS, SUBSETS
from anymodal.evaluation import captions
from anymodal.evaluation.classification import SINGLE, Regime, System
from anymodal.evaluation.cross_source_scores import SourceScores
from anymodal.report import cross_source_figure, figures, structure_figures
from anymodal.report.calibration_figures import reliability_figure
from anymodal.report.inputs import ReportInputs
from anymodal.report.palette import PALETTE
from anymodal.report.svg import inline_svg


def build_report(workspace: Workspace, params: Params, commit: str | None = None) -> Path:
    """Write the page to `workspace.report` and return its path.

    `commit`, where given, is printed as the code's version. Raises `AnymodalError`, naming the
    file and the stage to run, for a result that is missing, damaged or of another dataset.
    """
    write_text(workspace.report, render(ReportInputs.read(workspace), params, commit))
    return workspace.report


def render(inputs: ReportInputs, params: Params, commit: str | None = None) -> str:
    """Return the page as HTML text."""
    environment = Environment(
        loader=PackageLoader("anymodal.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    named = {name: getattr(captions, name) for name in captions.__all__}
    environment.globals |= named | {
        "MODALITIES": MODALITIES,
        "OTHER": OTHER,
        "SINGLE": SINGLE,
        "REGIMES": get_args(Regime),
        "SYSTEMS": get_args(System),
        "SYSTEM_KEYS": cross_source_figure.SYSTEMS,
        "accuracy": _accuracy,
        "mean": lambda values: float(np.mean(values)) if values else None,
    }
    environment.filters |= {
        "pair": lambda pair: pair.replace("+", " + "),
        "number": captions.number,
        "listed": captions.listed,
    }
    drawn = {
        name: Markup(inline_svg(figure, name, label))
        for name, (figure, label) in report_figures(inputs).items()
    }
    return environment.get_template("template.html.j2").render(
        palette=PALETTE,
        inputs=inputs,
        figures=drawn,
        axis_start=figures.retrieval_limits(inputs.retrieval)[0],
        by_class=_by_class(inputs),
        clip_counts=clip_counts(inputs),
        parameters=_parameters(params, inputs.dataset.pairing),
        max_epochs=params.translate.max_epochs,
        commit=commit,
    )


def report_figures(inputs: ReportInputs) -> dict[str, tuple[Figure, str]]:
    """Return every figure of the page, one panel each, and its label for screen readers."""
    result, predictions, classes = (
        inputs.classification, inputs.predictions, inputs.classification.classes
    )  # fmt: skip
    drawn: dict[str, tuple[Figure, str]] = {}
    for target in MODALITIES:
        tested = f"tested on {captions.MODALITY_NAMES[target]}"
        drawn[f"scores-{target}"] = (
            figures.scores_figure(result, [target]),
            f"Bar chart of macro F1 by system, {tested}",
        )
        for regime in get_args(Regime):
            if len(figures.system_answers(predictions, "MMT", regime, target)):
                drawn[f"confusion-{regime}-{target}"] = (
                    figures.confusion_figure(predictions, classes, "MMT", regime, target),
                    f"Confusion matrix of MMT, {captions.REGIME_NAMES[regime]}, {tested}",
                )
        drawn[f"classes-{target}"] = (
            figures.class_f1_figure(predictions, classes, target),
            f"Bar chart of F1 by class, {tested}; table below",
        )
        drawn[f"mixing-{target}"] = (
            figures.mixing_figure(
                inputs.curve, target, result.scores.get((SINGLE[target], "all", target))
            ),
            f"Box plots of macro F1 by rows mixed in, {tested}; table below",
        )
        drawn[f"reliability-{target}"] = (
            reliability_figure(inputs.calibration, [target]),
            f"Reliability diagram, {tested}",
        )
        if inputs.cross_source.targets[target].measured:
            drawn[f"cross_source-{target}"] = (
                cross_source_figure.cross_source_figure(inputs.cross_source.targets[target]),
                f"Dot plot of macro F1 within and across sources, {tested}; table below",
            )
    for direction, name in captions.DIRECTIONS.items():
        drawn[f"retrieval-{direction}"] = (
            figures.retrieval_figure(inputs.retrieval, inputs.selection.pair, [direction]),
            f"Dot plot of retrieval scores by pair of encoders, {name}; table below",
        )
    drawn["structure-pca"] = (
        structure_figures.structure_figure(inputs.structure.pca, "modality"),
        "Matrix of distances between class centroids after PCA",
    )
    drawn["structure-translated"] = (
        structure_figures.structure_figure(inputs.structure.translated[0], "instrument"),
        "Matrix of distances between class centroids after translation",
    )
    drawn["labels"] = (
        structure_figures.labels_figure(inputs.structure.label_counts, inputs.structure.classes),
        "Bar chart of clips by class that trained the translation",
    )
    drawn["training"] = (
        figures.training_figure(inputs.trainings),
        "Validation loss by epoch, one line per seed; table beside",
    )
    return drawn


def clip_counts(inputs: ReportInputs) -> dict[str, Any]:
    """The table of clips per class by modality, subset and split, without columns of zeros.

    Returns its header rows of (text, columns spanned), its rows of (class, counts), the totals,
    and by modality the clips that the translation was trained with.
    """
    table = pd.DataFrame(
        [
            (row["instrument"] or "several or none", row["modality"], row["subset"], row["split"],
             row["taken"])
            for row in inputs.dataset.account
            if row["subset"] in SUBSETS and row["split"] in SPLITS
        ],
        columns=["instrument", "modality", "subset", "split", "taken"],
    )  # fmt: skip
    counts = table.pivot_table("taken", "instrument", ["modality", "subset", "split"], "sum", 0)
    counts = counts.astype(int)
    columns: list[tuple[str, ...]] = sorted(
        (tuple(column) for column in counts.columns if counts[column].any()),
        key=lambda column: (column[0], SUBSETS.index(column[1]), SPLITS.index(column[2])),
    )
    counts = counts[columns]
    heads = []
    for depth in (1, 2, 3):
        spans = [(key[-1], len(list(same))) for key, same in groupby(c[:depth] for c in columns)]
        heads.append([(captions.MODALITY_NAMES.get(text, text), span) for text, span in spans])
    return {
        "heads": heads,
        "rows": [(name, row.tolist()) for name, row in counts.iterrows()],
        "totals": counts.sum().tolist(),
        "translation": {
            column[0]: counts[column].sum()
            for column in columns
            if column[1:] == ("translation", "train")
        },
    }


def _by_class(inputs: ReportInputs) -> dict[tuple[str, str], np.ndarray]:
    """F1 by class (classes,) of what the table of classes shows, by system and target as named."""
    columns = {}
    for target in MODALITIES:
        keys: list[tuple[System, Regime]] = [
            ("MMT", "zero-shot"), ("MMT", "all"), (SINGLE[target], "all"),
        ]  # fmt: skip
        for system, regime in keys:
            if len(figures.system_answers(inputs.predictions, system, regime, target)):
                scores = figures.scores_by_class(
                    inputs.predictions, inputs.classification.classes, system, regime, target
                )
                name = f"{system}, {captions.REGIME_NAMES[regime]}"
                columns[captions.MODALITY_NAMES[target], name] = scores.mean
    return columns


def _accuracy(source: SourceScores, *key: str) -> float | None:
    """Accuracy on one source by protocol, system and regime, where it was measured."""
    return next((a.value for a in source.accuracy if (a.protocol, a.system, a.regime) == key), None)


def _parameters(params: Params, pairing: str) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every parameter that a result depends on.

    Without the sections of tracking (an address of a store may carry a password) and tuning, and
    without AudioSet's where nothing was filmed.
    """
    skipped = {"tracking", "tune"} | ({"audioset"} if pairing == "class" else set())
    rows: list[tuple[str, Any, str | None]] = []
    for name, field in type(params).model_fields.items():
        value = getattr(params, name)
        if name in skipped:
            continue
        if isinstance(value, Section):
            rows += [
                (f"{name}.{inner}", getattr(value, inner), described.description)
                for inner, described in type(value).model_fields.items()
            ]
        else:
            rows.append((name, value, field.description))
    return [(name, _value(value), meaning or "") for name, value, meaning in rows]


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)
