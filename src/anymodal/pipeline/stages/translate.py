"""Stage `translate`: two networks into one joint space for each pair of encoders, and PCA."""

from __future__ import annotations

from functools import partial

from anymodal.core.workspace import pair_name
from anymodal.pipeline.context import Context
from anymodal.projection import load_projection
from anymodal.projection.pca import fit_pca
from anymodal.projection.trainings import PairTrainings, train_or_load
from anymodal.tracking import registry
from anymodal.tracking.metric_names import metric_name
from anymodal.tracking.metrics import of_translation
from anymodal.tracking.promotion import translation_scores
from anymodal.tracking.registered_models import TRANSLATION


def translate(context: Context, audio: str, image: str) -> PairTrainings:
    """Run the stage for one pair of encoders.

    A killed training resumes from its checkpoint, and a finished one with the same inputs is kept:
    asking for two more seeds trains two.
    """
    workspace, params = context.workspace, context.params
    pair = pair_name(audio, image)
    data = context.training_data((audio, image))
    inputs = data.fingerprint(params.translate)
    trainings = []
    with context.pair_run("translate", (audio, image), "translation") as run:
        for seed in context.seeds(params.translate.seeds):
            training = train_or_load(
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
                points = {epoch.epoch: getattr(epoch, curve) for epoch in training.history}
                run.log_history(metric_name(f"{curve}_by_epoch", f"seed-{seed}"), points)
        matrices = data.train["audio"].matrix, data.train["image"].matrix
        reduction = fit_pca(*matrices, params.translate.dim, data.origin(params.seed))
        reduction.save(workspace.pca(pair))
        result = PairTrainings(
            audio=audio,
            image=image,
            pair=pair,
            pairing=data.pairing,
            pairs_per_epoch=len(data.sampler),
            seeds=tuple(trainings),
        )
        result.write(workspace.training(pair))
        run.log_metrics(of_translation(result).metrics)
        run.log_file(workspace.training(pair))
        if params.tracking.register_models:
            folder = workspace.translation(pair, result.best.seed)
            scores = translation_scores(
                load_projection(folder), data, context.dataset.name, params.retrieve
            )
            run.log_json(scores.as_dict(), registry.validation_scores_path(TRANSLATION))
            tags = registry.translation_tags(result)
            registry.register_translation(folder, tags, params.tracking)
    return result
