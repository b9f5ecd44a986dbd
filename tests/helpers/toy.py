"""A small project with made-up embeddings, as the stage `embed` leaves one behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from anymodal.config.params import load_params
from anymodal.core.modality import MODALITIES
from anymodal.core.workspace import Workspace
from anymodal.data.clips import write_clips
from anymodal.data.info import DatasetInfo
from anymodal.embeddings.cache import EmbeddingNote
from anymodal.embeddings.cache_writer import locked, write_embeddings
from anymodal.ontology.graph import ontology
from anymodal.pipeline.context import Context

INSTRUMENTS = ("Banjo", "Flute", "Piano", "Cello")
COUNTS = {
    ("translation", "train"): 20,
    ("translation", "valid"): 8,
    ("retrieval", "test"): 6,
    ("classification", "train"): 8,
    ("classification", "valid"): 8,
    ("classification", "test"): 6,
}
"""Rows a class and modality."""
UNSEEN = (("retrieval", "test"), ("classification", "test"))
"""What no search may look at."""


def toy(
    folder: Path,
    params: dict[str, Any] | None = None,
    poisoned: bool = False,
    encoders: dict[str, tuple[str, str, int]] | None = None,
    noise: float = 1.0,
) -> Path:
    """Make a project in `folder` and return its params.yaml.

    `encoders` gives name, version and dimensions a modality. With `poisoned`, the embeddings of
    rows that no search may look at are not numbers, and their classes are wrong.
    """
    encoders = encoders or {"audio": ("toy_audio", "a1", 8), "image": ("toy_image", "i1", 10)}
    rng = np.random.default_rng(0)
    mids = {name: ontology().mid(name) for name in INSTRUMENTS}
    workspace = Workspace(folder)
    rows: list[dict[str, Any]] = []
    vectors: dict[str, list[np.ndarray]] = {"audio": [], "image": []}
    for modality, (_, _, dim) in encoders.items():
        centres = rng.normal(size=(len(INSTRUMENTS), dim))
        for (subset, split), count in COUNTS.items():
            for code, name in enumerate(INSTRUMENTS):
                for number in range(count):
                    unseen = poisoned and (subset, split) in UNSEEN
                    labelled = INSTRUMENTS[(code + 1) % len(INSTRUMENTS)] if unseen else name
                    key = f"{modality}-{subset}-{split}-{code}-{number}"
                    rows.append(
                        {
                            "clip_id": key,
                            "audio": f"{key}.wav" if modality == "audio" else None,
                            "image": f"{key}.jpg" if modality == "image" else None,
                            "start_s": 0.0,
                            "labels": [mids[labelled]],
                            "instrument": labelled.lower(),
                            "source": "toy",
                            # two windows a recording
                            "group": f"{modality}-{subset}-{split}-{code}-{number // 2}",
                            "pairing": "class",
                            "subset": subset,
                            "split": split,
                        }
                    )
                    vector = centres[code] + noise * rng.normal(size=dim)
                    vectors[modality].append(np.full(dim, np.nan) if unseen else vector)
    clips = pd.DataFrame(rows)
    write_clips(workspace.clips, clips)
    DatasetInfo(
        name="toy",
        source="folder",
        pairing="class",
        classes=tuple(sorted(name.lower() for name in INSTRUMENTS)),
        rows={m: int(clips[m].notna().sum()) for m in MODALITIES},
        groups=int(clips["group"].nunique()),
    ).write(workspace.dataset)
    for modality, (name, version, dim) in encoders.items():
        ids = clips.loc[clips[modality].notna(), "clip_id"].to_list()
        index = pd.DataFrame({"clip_id": ids, "row": range(len(ids)), "error": None})
        note = EmbeddingNote(name, modality, version, dim, len(ids), 0)
        with locked(workspace.embeddings, name):
            block = np.array(vectors[modality], dtype=np.float32)
            write_embeddings(workspace.embeddings, note, index, [block])
    content: dict[str, Any] = {
        "embed": {"audio": [encoders["audio"][0]], "image": [encoders["image"][0]]},
        "translate": {"hidden": 16, "dim": 8, "batch_size": 32, "max_epochs": 8, "device": "cpu"},
        "retrieve": {"top_k": 5},
        "classify": {"trees": 10, "pair": f"{encoders['audio'][0]}+{encoders['image'][0]}"},
        "tune": {
            "trials": 4,
            "startup_trials": 2,
            "warmup_epochs": 1,
            "confirm_seeds": 3,
            "heartbeat_s": 1,
            "translation": dict.fromkeys(
                ("depth", "hidden", "activation", "dropout", "loss", "margin", "temperature",
                 "learning_rate", "batch_size", "weight_decay")
            ),
            "forest": dict.fromkeys(("trees", "max_depth", "min_leaf", "max_features")),
        },
    }  # fmt: skip
    for name, value in (params or {}).items():
        *sections, field = name.split("__")
        node = content
        for section in sections:
            node = node.setdefault(section, {})
        node[field] = value
    path = folder / "params.yaml"
    path.write_text("# my parameters\n" + yaml.safe_dump(content, sort_keys=False))
    return path


def context_of(params_file: Path) -> Context:
    """The context of a stage on the project of `params_file`."""
    return Context(Workspace(params_file.parent), load_params(params_file))
