"""Stage `retrieve`: how well audio finds images and images audio, for each pair of encoders."""

from __future__ import annotations

from anymodal.core.errors import AnymodalError
from anymodal.core.workspace import pair_name
from anymodal.evaluation.retrieval import (
    Directions,
    RetrievalResult,
    SeedDirections,
    Untranslated,
    cross_modal_retrieval,
    random_baseline,
    retrieve_rows,
)
from anymodal.pipeline.context import Context
from anymodal.tracking import registry
from anymodal.tracking.metric_names import metric_name
from anymodal.tracking.metrics import by_direction, of_retrieval


def retrieve(context: Context, audio: str, image: str) -> RetrievalResult:
    """Run the stage for one pair of encoders."""
    workspace, params = context.workspace, context.params.retrieve
    pair = pair_name(audio, image)
    rows = context.rows((audio, image), "retrieval")
    labels = {modality: each.clips["labels"].to_list() for modality, each in rows.items()}

    def scores(seed: int | None) -> dict[str, float]:
        projection = context.projection((audio, image), rows, seed)
        return dict(retrieve_rows(projection, rows, params.top_k, params.chunk).directions)

    with context.pair_run("retrieve", (audio, image), "retrieval") as run:
        seeds = context.seeds(context.params.translate.seeds)
        result = RetrievalResult(
            **context.measured((audio, image)),
            audio=audio,
            image=image,
            top_k=params.top_k,
            n_audio=len(rows["audio"].clips),
            n_image=len(rows["image"].clips),
            translation=tuple(
                SeedDirections(seed=seed, **scores(seed))
                for seed in context.track(f"retrieve {pair}", seeds)
            ),
            pca=Directions(**scores(None)),
            random=random_baseline(labels["audio"], labels["image"], k=params.top_k),
            untranslated=_untranslated(context) if params.untranslated else None,
        )
        # in this order: MLflow's comparison starts with the metric that was logged first
        run.log_metrics(of_retrieval(result).metrics)
        for each in result.translation:
            curves = {
                metric_name("ndcg_by_seed", of): value for of, value in by_direction(each).items()
            }
            run.log_metrics(curves, step=each.seed)
        result.write(workspace.retrieval(pair))
        run.log_file(workspace.retrieval(pair))
        if context.params.tracking.register_models:
            registry.describe_translation(workspace, pair, context.params.tracking)
    return result


def _untranslated(context: Context) -> Untranslated:
    """Retrieval in the space that two encoders share by their own training (section 4.1)."""
    audio, image = context.params.retrieve.untranslated
    rows = context.rows((audio, image), "retrieval")
    dims = {modality: each.matrix.shape[1] for modality, each in rows.items()}
    if dims["audio"] != dims["image"]:
        raise AnymodalError(
            f"{audio} gives {dims['audio']} values and {image} {dims['image']}: they share no "
            "space; name two encoders that were trained together in retrieve.untranslated"
        )
    scores = cross_modal_retrieval(
        rows["audio"].matrix,
        rows["image"].matrix,
        rows["audio"].clips["labels"].to_list(),
        rows["image"].clips["labels"].to_list(),
        k=context.params.retrieve.top_k,
        chunk=context.params.retrieve.chunk,
    )
    return Untranslated(audio=audio, image=image, **dict(scores.directions))
