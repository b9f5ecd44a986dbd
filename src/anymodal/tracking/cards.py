"""Model cards: what a registered model is for, what it was made from and what it reaches.

Markdown, from the model's own files and the stages' results; the registry keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from anymodal.classifier.assessment import CalibrationResult
from anymodal.classifier.open_set import HEADER as CALIBRATOR
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Measured
from anymodal.core.storage import read_json
from anymodal.core.workspace import Workspace
from anymodal.data.clips import SUBSETS, read_clips
from anymodal.data.info import DatasetInfo
from anymodal.encoders import registry
from anymodal.evaluation import captions
from anymodal.evaluation.classification import ClassificationResult
from anymodal.evaluation.cross_source_scores import CrossSourceResult
from anymodal.evaluation.retrieval import Directions, RetrievalResult
from anymodal.projection.artifact import HEADER as PROJECTION
from anymodal.projection.trainings import PairTrainings

FILE = "README.md"
"""The card's name in a model's folder."""
LIMIT = 5000
"""Characters of a description that MLflow's database keeps."""


@dataclass(frozen=True)
class CardInputs:
    """What the stages wrote about a model; None where that is not known."""

    dataset: DatasetInfo | None = None
    sources: Mapping[Modality, Mapping[str, int]] = field(default_factory=dict)
    """Clips by source."""
    trainings: PairTrainings | None = None
    retrieval: RetrievalResult | None = None
    classification: ClassificationResult | None = None
    calibration: CalibrationResult | None = None
    cross_source: CrossSourceResult | None = None

    @classmethod
    def read(cls, workspace: Workspace, pair: str, stages: Collection[str]) -> CardInputs:
        """Read the dataset, and the results of the named stages on `pair`, as far as they exist."""

        def read(kind: type[Measured] | type[PairTrainings], path: Path, stage: str) -> Any:
            if stage in stages and path.is_file():
                result = kind.read(path, stage)
                return result if result.pair == pair else None

        sources = {}
        if workspace.clips.is_file():
            clips = read_clips(workspace.clips)
            for modality in MODALITIES:
                counts = clips.loc[clips[modality].notna(), "source"].value_counts()
                sources[modality] = {str(k): int(n) for k, n in counts.sort_index().items()}
        info = workspace.dataset
        return cls(
            dataset=DatasetInfo.read(info, "dataset") if info.is_file() else None,
            sources=sources,
            trainings=read(PairTrainings, workspace.training(pair), "translate"),
            retrieval=read(RetrievalResult, workspace.retrieval(pair), "retrieve"),
            classification=read(ClassificationResult, workspace.classification, "classify"),
            calibration=read(CalibrationResult, workspace.calibration, "classify"),
            cross_source=read(CrossSourceResult, workspace.cross_source, "cross_source"),
        )


def classifier_card(folder: Path, inputs: CardInputs) -> str:
    """Return the card of the classifier saved in `folder`."""
    meta = read_json(folder / "model.json")
    calibrator = folder / CALIBRATOR
    return _render(
        "card_classifier.md.j2",
        inputs,
        encoders=meta["encoders"],
        classes=meta["classes"],
        facts=meta["facts"],
        header=read_json(folder / "projection" / PROJECTION),
        calibrator=read_json(calibrator) if calibrator.is_file() else {"facts": {}},
    )


def translation_card(folder: Path, inputs: CardInputs) -> str:
    """Return the card of the translation saved in `folder`."""
    header = read_json(folder / PROJECTION)
    retrieval = None if inputs.retrieval is None else _retrieval(inputs.retrieval)
    return _render(
        "card_translation.md.j2",
        inputs,
        encoders=header["encoders"],
        header=header,
        retrieval=retrieval,
    )


def shortened(card: str, limit: int = LIMIT, rest: str = "") -> str:
    """Return the card's first sections, as many as fit; `rest` says where the others are."""
    if len(card) <= limit:
        return card
    head, *sections = re.split(r"\n(?=## )", card)
    kept = head[: limit - len(rest) - 1]
    for section in sections:
        if len(kept) + len(section) + len(rest) + 2 > limit:
            break
        kept += "\n" + section
    return f"{kept}\n{rest}"


def _render(template: str, inputs: CardInputs, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("anymodal.tracking", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {name: getattr(captions, name) for name in captions.__all__}
    environment.globals |= {"MODALITIES": MODALITIES, "row": _row, "table": _table}
    text = environment.get_template(template).render(
        inputs=inputs,
        subsets=[] if inputs.dataset is None else _subsets(inputs.dataset),
        encoder_rows=_encoders(values["encoders"]),
        **values,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _row(cells: Sequence[object]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _table(rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; the first row names the columns."""
    return "\n".join(map(_row, [rows[0], ["---"] * len(rows[0]), *rows[1:]]))


def _subsets(dataset: DatasetInfo) -> list[list[object]]:
    """Clips by subset, split and modality, as rows of a table."""
    clips: dict[tuple[str, str], dict[str, int]] = {}
    for row in dataset.account:
        if row["subset"] in SUBSETS:
            counts = clips.setdefault((row["subset"], row["split"]), {})
            counts[row["modality"]] = counts.get(row["modality"], 0) + row["taken"]
    modalities = ("both",) if any("both" in counts for counts in clips.values()) else MODALITIES
    return [
        ["subset", "split", *(captions.MODALITY_NAMES[m] for m in modalities)],
        *([*place, *(counts.get(m, 0) for m in modalities)] for place, counts in clips.items()),
    ]


def _encoders(used: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    """Encoders as rows of a table."""
    rows: list[list[object]] = [
        ["modality", "name", "version", "precision", "licence of the weights", "what"]
    ]
    for modality in MODALITIES:
        encoder, licence, summary = used[modality], "", "not registered here"
        if encoder["name"] in registry.names():
            info = registry.info(encoder["name"])
            licence, summary = info.licence, info.summary
        precision = encoder.get("precision", "float32")
        known = [modality, encoder["name"], encoder["version"], precision]
        rows.append([*known, licence or "unknown", summary])
    return rows


def _retrieval(result: RetrievalResult) -> list[list[object]]:
    """NDCG by space and direction, as rows of a table."""
    spaces: dict[str, Sequence[Directions]] = {
        "translated": result.translation,
        "PCA": (result.pca,),
        "chance": (result.random,),
    }
    if result.untranslated is not None:
        spaces["untranslated"] = (result.untranslated,)
    rows: list[list[object]] = [["space", *captions.DIRECTIONS.values(), "mean"]]
    for name, scores in spaces.items():
        cells: list[object] = [name]
        for direction in (*captions.DIRECTIONS, "mean"):
            values = [getattr(score, direction) for score in scores]
            std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            cells.append(captions.mean_std(float(np.mean(values)), std, len(values)))
        rows.append(cells)
    return rows
