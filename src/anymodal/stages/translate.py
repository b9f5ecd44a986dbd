"""Stage `translate`: train a pair's translations, and fit its PCA baseline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.dataset.pairing import PairSampler, fixed_pairs
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.params import Params
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.pca import fit_pca
from anymodal.projection.training import train_translation
from anymodal.registry import register_translation
from anymodal.stages.base import (
    Advance,
    Context,
    Rows,
    dataset_facts,
    drawn_clips,
    encoder_pair,
    pair_run,
    part,
    seeds_of,
)
from anymodal.storage import read_json, write_json
from anymodal.workspace import pair_name

HISTORY = "history.json"
"""Beside each translation: how its training went, and the fingerprint of what went into it."""


def translate(context: Context, audio: str, image: str) -> dict[str, Any]:
    """Run the stage for one pair of encoders; return the trainings (see `training.json`).

    A killed training resumes from its checkpoint, and a finished one whose inputs are unchanged is
    kept: asking for two more seeds trains two.
    """
    workspace, params = context.workspace, context.params
    pair = pair_name(audio, image)
    facts = dataset_facts(workspace)
    clips = part(drawn_clips(workspace), "translation")
    train = encoder_pair(workspace, part(clips, "translation", "train"), audio, image)
    valid = encoder_pair(workspace, part(clips, "translation", "valid"), audio, image)
    sampler = PairSampler(*_classes(train), facts["pairing"])
    # validation rows stand behind the training rows in one matrix a modality
    stacked = {m: np.concatenate([train[m].matrix, valid[m].matrix]) for m in MODALITIES}
    held_out = fixed_pairs(*_classes(valid), facts["pairing"], params.seed)
    held_out = held_out._replace(
        audio=held_out.audio + len(train["audio"].matrix),
        image=held_out.image + len(train["image"].matrix),
    )
    inputs = _fingerprint(params, facts["pairing"], train, valid)
    trainings = []
    with pair_run(context, "translate", audio, image, "translation", clips) as run:
        for seed in seeds_of(params.seed, params.translate.seeds):
            folder = workspace.translation(pair, seed)
            training = _finished(folder, inputs)
            if training is None:
                with context.progress(f"translate {pair} seed {seed}") as advance:
                    result = train_translation(
                        stacked["audio"],
                        stacked["image"],
                        sampler.epoch,
                        held_out,
                        params.translate,
                        seed,
                        checkpoint=workspace.scratch / "translate" / pair / f"seed-{seed}",
                        on_epoch=_teller(advance, params.translate.max_epochs),
                        train_rows=(
                            np.arange(len(train["audio"].matrix)),
                            np.arange(len(train["image"].matrix)),
                        ),
                        origin=_origin(audio, image, train, facts["pairing"], seed),
                    )
                result.translation.save(folder)
                training = {
                    "seed": seed,
                    "best_epoch": result.best_epoch,
                    "epochs": len(result.history),
                    "valid_loss": min(entry["valid_loss"] for entry in result.history),
                    "history": result.history,
                }
                write_json(folder / HISTORY, {"inputs": inputs, **training})
            trainings.append(training)
            for curve in ("train_loss", "valid_loss"):
                points = {int(entry["epoch"]): entry[curve] for entry in training["history"]}
                run.log_history(f"seed-{seed}/{curve}", points)
        reduction = fit_pca(
            train["audio"].matrix,
            train["image"].matrix,
            params.translate.dim,
            _origin(audio, image, train, facts["pairing"], params.seed),
        )
        reduction.save(workspace.pca(pair))
        best = min(trainings, key=lambda training: training["valid_loss"])
        told = {
            "audio": audio,
            "image": image,
            "pair": pair,
            "pairing": facts["pairing"],
            "pairs_per_epoch": len(sampler),
            "seeds": trainings,
        }
        write_json(workspace.training(pair), told)
        run.log_metrics(
            {
                "valid_loss/mean": float(np.mean([t["valid_loss"] for t in trainings])),
                "valid_loss/best": best["valid_loss"],
                "epochs/mean": float(np.mean([t["epochs"] for t in trainings])),
            }
        )
        run.log_file(workspace.training(pair))
        if params.tracking.register_models:
            tags = {"pair": pair, "pairing": facts["pairing"], "seed": str(best["seed"])}
            register_translation(workspace.translation(pair, best["seed"]), tags, params, run)
    return told


def _classes(rows: dict[Modality, Rows]) -> tuple[np.ndarray, np.ndarray]:
    return (
        rows["audio"].clips["instrument"].to_numpy(),
        rows["image"].clips["instrument"].to_numpy(),
    )


def _origin(audio: str, image: str, rows: dict[Modality, Rows], pairing: str, seed: int) -> Origin:
    sounds, pictures = rows["audio"], rows["image"]
    return Origin(
        EncoderRef(audio, sounds.version, sounds.matrix.shape[1]),
        EncoderRef(image, pictures.version, pictures.matrix.shape[1]),
        pairing,
        seed,
    )


def _fingerprint(
    params: Params, pairing: str, train: dict[Modality, Rows], valid: dict[Modality, Rows]
) -> str:
    """Hash of all that a training of a given seed depends on."""
    settings = params.translate.model_dump_json(exclude={"seeds"})
    total = hashlib.sha256(f"{settings} {pairing} {params.seed}".encode())
    for rows in (*train.values(), *valid.values()):
        total.update(rows.version.encode())
        total.update("\n".join(rows.clips["clip_id"]).encode())
        total.update(np.ascontiguousarray(rows.matrix).data)
    return total.hexdigest()


def _finished(folder: Path, inputs: str) -> dict[str, Any] | None:
    """The training that `folder` holds, if it is of the same inputs."""
    if not (folder / HISTORY).is_file():
        return None
    told = read_json(folder / HISTORY)
    return told if told.pop("inputs", None) == inputs else None


def _teller(advance: Advance, epochs: int) -> Callable[[dict[str, float]], None]:
    return lambda entry: advance(int(entry["epoch"]), epochs)
