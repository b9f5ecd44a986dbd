"""Stage `retrieve`: how well sounds find pictures and pictures sounds, for each pair."""

from __future__ import annotations

from typing import Any

import pandas as pd

from anymodal.errors import AnymodalError
from anymodal.model_card_store import describe_translation
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.retrieval import (
    RandomScores,
    RetrievalScores,
    cross_modal_retrieval,
    random_baseline,
)
from anymodal.run_metrics import of_retrieval, ways
from anymodal.stages.base import (
    Context,
    dataset_facts,
    drawn_clips,
    encoder_pair,
    pair_run,
    part,
    seeds_of,
    versions,
)
from anymodal.storage import write_json
from anymodal.tracking import metric_name
from anymodal.workspace import pair_name


def retrieve(context: Context, audio: str, image: str) -> dict[str, Any]:
    """Run the stage for one pair of encoders; return its scores."""
    workspace, params = context.workspace, context.params
    pair = pair_name(audio, image)
    facts = dataset_facts(workspace)
    clips = part(drawn_clips(workspace), "retrieval")
    rows = encoder_pair(workspace, clips, audio, image)
    used = versions(rows)
    labels = {modality: one.clips["labels"].to_list() for modality, one in rows.items()}

    def score(projection: Projection) -> RetrievalScores:
        return cross_modal_retrieval(
            projection.project("audio", rows["audio"].matrix),
            projection.project("image", rows["image"].matrix),
            labels["audio"],
            labels["image"],
            k=params.retrieve.top_k,
            chunk=params.retrieve.chunk,
        )

    with pair_run(context, "retrieve", audio, image, "retrieval", clips) as run:
        seeds = seeds_of(params.seed, params.translate.seeds)
        translated = []
        with context.progress(f"retrieve {pair}") as advance:
            for done, seed in enumerate(seeds):
                advance(done, len(seeds))
                ways_of_seed = _ways(
                    score(load_projection(workspace.translation(pair, seed), used))
                )
                translated.append({"seed": seed, **ways_of_seed})
            advance(len(seeds), len(seeds))
        chance = random_baseline(
            labels["audio"],
            labels["image"],
            k=params.retrieve.top_k,
            draws=params.retrieve.random_draws,
            seed=params.seed,
        )
        scores = {
            "audio": audio,
            "image": image,
            "pair": pair,
            "dataset": facts["name"],
            "pairing": facts["pairing"],
            "top_k": params.retrieve.top_k,
            "n_audio": len(rows["audio"].clips),
            "n_image": len(rows["image"].clips),
            "translation": translated,
            "pca": _ways(score(load_projection(workspace.pca(pair), used))),
            "random": _ways(chance),
        }
        if params.retrieve.untranslated:
            scores["untranslated"] = _untranslated(context, clips)
        # in this order: MLflow's comparison starts with the metric that was logged first
        run.log_metrics(of_retrieval(scores).metrics)
        for found in translated:
            curves = {metric_name("ndcg_by_seed", way): v for way, v in ways(found).items()}
            run.log_metrics(curves, step=int(found["seed"]))
        write_json(workspace.retrieval(pair), scores)
        run.log_file(workspace.retrieval(pair))
        if params.tracking.register_models:
            describe_translation(workspace, pair, params)
    return scores


def _untranslated(context: Context, clips: pd.DataFrame) -> dict[str, Any]:
    """Retrieval in the space that two encoders share by their own training (section 4.1)."""
    audio, image = context.params.retrieve.untranslated
    rows = encoder_pair(context.workspace, clips, audio, image)
    dims = {modality: one.matrix.shape[1] for modality, one in rows.items()}
    if dims["audio"] != dims["image"]:
        raise AnymodalError(
            f"{audio} gives {dims['audio']} values and {image} {dims['image']}: they share no "
            "space; name two encoders that were trained together in retrieve.untranslated"
        )
    found = cross_modal_retrieval(
        rows["audio"].matrix,
        rows["image"].matrix,
        rows["audio"].clips["labels"].to_list(),
        rows["image"].clips["labels"].to_list(),
        k=context.params.retrieve.top_k,
        chunk=context.params.retrieve.chunk,
    )
    return {"audio": audio, "image": image, **_ways(found)}


def _ways(scores: RetrievalScores | RandomScores) -> dict[str, float]:
    return {
        "audio_to_image": float(scores.audio_to_image),
        "image_to_audio": float(scores.image_to_audio),
    }
