"""Stage `translate`: train a pair's translations, and fit its PCA baseline."""

from __future__ import annotations

from functools import partial
from typing import Any

from anymodal.model_card import known
from anymodal.projection import load_projection
from anymodal.projection.pca import fit_pca
from anymodal.registry import TRANSLATION, evidence_path, register_translation
from anymodal.run_metrics import of_translation
from anymodal.stages.base import (
    Context,
    dataset_facts,
    drawn_clips,
    pair_run,
    part,
    seeds_of,
)
from anymodal.stages.trainings import trained
from anymodal.stages.translation_data import TranslationData
from anymodal.storage import write_json
from anymodal.tracking import metric_name


def translate(context: Context, audio: str, image: str) -> dict[str, Any]:
    """Run the stage for one pair of encoders; return the trainings (see `training.json`).

    A killed training resumes from its checkpoint, and a finished one whose inputs are unchanged is
    kept: asking for two more seeds trains two.
    """
    workspace, params = context.workspace, context.params
    data = TranslationData.load(context, audio, image)
    pair, inputs = data.pair, data.fingerprint(params.translate)
    dataset = dataset_facts(workspace)["name"]
    clips = part(drawn_clips(workspace), "translation")
    trainings = []
    with pair_run(context, "translate", audio, image, "translation", clips) as run:
        for seed in seeds_of(params.seed, params.translate.seeds):
            training = trained(
                data,
                params.translate,
                seed,
                folder=workspace.translation(pair, seed),
                checkpoint=workspace.scratch / "translate" / pair / f"seed-{seed}",
                progress=partial(context.progress, f"translate {pair} seed {seed}"),
                inputs=inputs,
            )
            trainings.append(training)
            for curve in ("train_loss", "valid_loss"):
                points = {int(entry["epoch"]): entry[curve] for entry in training["history"]}
                run.log_history(metric_name(f"{curve}_by_epoch", f"seed-{seed}"), points)
        reduction = fit_pca(
            data.train["audio"].matrix,
            data.train["image"].matrix,
            params.translate.dim,
            data.origin(params.seed),
        )
        reduction.save(workspace.pca(pair))
        best = min(trainings, key=lambda training: training["valid_loss"])
        told = {
            "audio": audio,
            "image": image,
            "pair": pair,
            "pairing": data.pairing,
            "pairs_per_epoch": len(data.sampler),
            "seeds": trainings,
        }
        write_json(workspace.training(pair), told)
        run.log_metrics(of_translation(told).metrics)
        run.log_file(workspace.training(pair))
        if params.tracking.register_models:
            folder = workspace.translation(pair, best["seed"])
            tags = {"pair": pair, "pairing": data.pairing, "seed": str(best["seed"])}
            run.log_json(
                data.evidence(load_projection(folder), dataset, params).as_dict(),
                evidence_path(TRANSLATION),
            )
            register_translation(folder, tags, params, run, known(workspace, pair))
    return told
