"""The commands of the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli import console
from anymodal.cli.context import PARAMS, ParamsFile, context_of, print_scores
from anymodal.core.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.evaluation.cross_source_scores import ProtocolScore
    from anymodal.pipeline.context import Context

app = typer.Typer()

AudioEncoder = Annotated[str, typer.Option("--audio", help="Audio encoder; default: all.")]
ImageEncoder = Annotated[str, typer.Option("--image", help="Image encoder; default: all.")]


@app.command()
def dataset(params: ParamsFile = PARAMS) -> None:
    """Read the source's clips and draw the three disjoint subsets."""
    from anymodal.pipeline.stages.dataset import dataset as stage

    account = stage(context_of(params))
    account["part"] = (account["subset"] + " " + account["split"]).str.strip()
    counts = account.pivot_table(
        index=["instrument", "modality"], columns="part", values="taken", aggfunc="sum"
    )
    parts = sorted(counts.columns, key=lambda part: (part == "unused", part))
    console.table(
        "Clips drawn",
        ["instrument", "modality", *parts],
        [
            (*names, *("-" if not n > 0 else int(n) for n in row))
            for names, row in zip(counts.index.to_list(), counts[parts].to_numpy(), strict=True)
        ],
    )
    reasons = account[(account["subset"] == "unused") & (account["taken"] > 0)]
    for note, lines in reasons.groupby("note"):
        names = ", ".join(sorted(set(lines["instrument"].dropna())))
        console.out.print(f"{lines['taken'].sum()} clips unused: {note} ({names})")


@app.command()
def check(params: ParamsFile = PARAMS) -> None:
    """Check the clip table: schema, balance, disjointness, pairing."""
    from anymodal.pipeline.stages.check import check as stage

    report = stage(context_of(params))
    console.table(
        "Data checks",
        ["check", "result", "observed"],
        [(r.name, "ok" if r.success else r.severity, r.message) for r in report.results],
    )


@app.command()
def embed(params: ParamsFile = PARAMS) -> None:
    """Embed every clip with every encoder; resumes where it was stopped."""
    from anymodal.pipeline.stages.embed import embed as stage

    reports = stage(context_of(params))
    measured = any(r.precision_error is not None for r in reports)
    console.table(
        "Embeddings",
        ["encoder", "embedded", "reused", "failed", "seconds"]
        + ["error against float32"] * measured,
        [
            [r.encoder, r.embedded, r.reused, r.failed, f"{r.seconds:.1f}"]
            + ["" if r.precision_error is None else f"{r.precision_error:.2%}"] * measured
            for r in reports
        ],
    )
    for report in reports:
        for failure in report.failures.itertuples(index=False):
            console.err.print(f"{report.encoder}: clip {failure.clip_id} failed: {failure.error}")


@app.command()
def translate(
    audio: AudioEncoder = "", image: ImageEncoder = "", params: ParamsFile = PARAMS
) -> None:
    """Train the translation of a pair of encoders, and fit its PCA baseline."""
    from anymodal.pipeline.stages.translate import translate as stage

    context = context_of(params)
    results = [stage(context, *pair) for pair in _pairs(context, audio, image)]
    console.table(
        f"Translations ({results[0].pairing}-paired)",
        ["pair", "pairs per epoch", "validation loss", "epochs by seed"],
        [
            (
                result.pair,
                result.pairs_per_epoch,
                _spread([training.valid_loss for training in result.seeds]),
                " ".join(str(training.epochs) for training in result.seeds),
            )
            for result in results
        ],
    )


@app.command()
def retrieve(
    audio: AudioEncoder = "", image: ImageEncoder = "", params: ParamsFile = PARAMS
) -> None:
    """Score cross-modal retrieval in the joint space, beside chance."""
    from anymodal.pipeline.stages.retrieve import retrieve as stage

    context = context_of(params)
    results = [stage(context, *pair) for pair in _pairs(context, audio, image)]
    first = results[0]
    baselines = {"pca": "PCA", "random": "random"}
    if first.untranslated is not None:
        baselines["untranslated"] = "untranslated"
    console.table(
        f"NDCG@{first.top_k} on {first.dataset} ({first.pairing}-paired; {first.n_audio} audio "
        f"clips, {first.n_image} images)",
        ["pair", "direction", "translated", *baselines.values()],
        [
            (
                result.pair,
                direction.replace("_", " "),
                _spread([getattr(seed, direction) for seed in result.translation]),
                *(f"{getattr(getattr(result, name), direction):.3f}" for name in baselines),
            )
            for result in results
            for direction in ("audio_to_image", "image_to_audio")
        ],
    )


@app.command()
def select(params: ParamsFile = PARAMS) -> None:
    """Choose the pair of encoders that retrieves best."""
    from anymodal.pipeline.stages.select import select as stage

    selection = stage(context_of(params))
    console.table(
        "Pairs by mean NDCG",
        ["pair", "mean of both directions", "audio to image", "image to audio"],
        [
            (
                ranked.pair,
                f"{ranked.mean:.4f} ± {ranked.std:.4f}",
                f"{ranked.audio_to_image:.4f}",
                f"{ranked.image_to_audio:.4f}",
            )
            for ranked in selection.ranking
        ],
    )


@app.command()
def classify(params: ParamsFile = PARAMS) -> None:
    """Train and test the four systems on the chosen pair; keep the best classifier."""
    from anymodal.pipeline.stages.classify import classify as stage

    print_scores(stage(context_of(params)))


@app.command()
def mixing(params: ParamsFile = PARAMS) -> None:
    """Measure what labelled rows of the target modality add; resumes."""
    from anymodal.pipeline.stages.mixing import mixing as stage

    context = context_of(params)
    points = {
        (point.target, point.samples, point.system): f"{point.mean:.3f} ± {point.std:.3f}"
        for point in stage(context).points
    }
    console.table(
        f"Macro F1 by rows of the target mixed in ({context.params.mixing.draws} draws)",
        ["tested on", "rows", "MMT", "MMP"],
        [
            (target, samples, *(points[target, samples, s] for s in ("MMT", "MMP")))
            for target, samples in dict.fromkeys(key[:2] for key in points)
        ],
    )


@app.command()
def structure(params: ParamsFile = PARAMS) -> None:
    """Measure where the classes lie in the joint space, and what goes with a class's F1."""
    from anymodal.pipeline.stages.structure import structure as stage

    result = stage(context_of(params))

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    spaces = [("PCA", result.pca)]
    spaces += [(f"translated, seed {space.seed}", space) for space in result.translated]
    console.table(
        f"Structure of {result.pair} on {result.dataset} ({result.pairing}-paired; "
        f"{result.test_rows['audio']} audio clips, {result.test_rows['image']} images)",
        ["space", "same / different", "audio by images", "images by audio", "chance"],
        [
            (name, *map(shown, (s.ratio, s.audio_to_image, s.image_to_audio, s.chance)))
            for name, s in spaces
        ],
    )


@app.command("cross_source")
def cross_source(params: ParamsFile = PARAMS) -> None:
    """Test the systems within sources and across sources, by cross-validation; resumes."""
    from anymodal.pipeline.stages.cross_source import cross_source as stage

    result = stage(context_of(params))
    for target, measured in result.targets.items():
        for left in measured.left_out:
            console.out.print(
                f"{left.rows} {target} clips of {left.instrument} are not tested: {left.reason}"
            )
        for protocol, reason in measured.missing.items():
            console.out.print(f"{target}, {protocol}: not measured, {reason}")
        if not measured.scores:
            continue
        shown = {(s.system, s.regime, s.protocol): s for s in measured.scores}
        protocols = list(dict.fromkeys(score.protocol for score in measured.scores))
        console.table(
            f"Macro F1 on {target} clips of {result.dataset} ({result.pairing}-paired, "
            f"{result.pair}; {measured.test_rows} rows, {measured.groups} recordings, "
            f"{measured.sources} source{'s' * (measured.sources != 1)}; {len(measured.classes)} "
            f"classes, chance {measured.chance:.3f}; {result.seeds} seeds, 95 % over recordings)",
            ["system", "trained on", *protocols],
            [
                (system, regime, *(_with_interval(shown[system, regime, p]) for p in protocols))
                for system, regime in dict.fromkeys((s.system, s.regime) for s in measured.scores)
            ],
        )


@app.command()
def report(params: ParamsFile = PARAMS) -> None:
    """Write the report page."""
    from anymodal.pipeline.stages.report import report as stage

    console.out.print(f"report: {stage(context_of(params))}")


def _with_interval(score: ProtocolScore) -> str:
    ends = "" if score.low is None else f" ({score.low:.2f} to {score.high:.2f})"
    return f"{score.mean:.3f} ± {score.std:.3f}{ends}"


def _pairs(context: Context, audio: str, image: str) -> list[tuple[str, str]]:
    known = context.params.embed.pairs
    chosen = [p for p in known if audio in ("", p[0]) and image in ("", p[1])]
    if not chosen:
        names = ", ".join(context.params.embed.encoders)
        raise AnymodalError(
            f"params.yaml lists no pair of {audio or 'any'} and {image or 'any'}; "
            f"its encoders are: {names}"
        )
    return chosen


def _spread(values: list[float]) -> str:
    import numpy as np

    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"
