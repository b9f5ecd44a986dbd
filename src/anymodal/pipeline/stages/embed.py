"""Stage `embed`: every encoder's embeddings of every clip, from media or from the pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal.config.params import EmbedParams
from anymodal.core.errors import AnymodalError
from anymodal.data.pack import read_pack
from anymodal.embeddings import extract, open_engine
from anymodal.embeddings.cache import ExtractionReport
from anymodal.embeddings.engines import InputSpec, Item, decode
from anymodal.embeddings.unpacking import materialise
from anymodal.encoders import registry
from anymodal.encoders.base import Encoder
from anymodal.encoders.precision import precision_error
from anymodal.pipeline.context import Context
from anymodal.pipeline.stages.dataset import source_root
from anymodal.tracking.metric_names import metric_name

_MEASURED = 16
"""Clips that the error of a shorter type than float32 is measured on."""
_LOGGED = ("embedded", "reused", "failed", "seconds", "precision_error")


def embed(context: Context) -> list[ExtractionReport]:
    """Run the stage; return what was embedded, reused and failed, one report an encoder.

    A killed run resumes; embeddings of clips that are in the cache already are kept.
    """
    workspace, params = context.workspace, context.params
    if params.dataset.source == "pack" and params.embed.precision != "float32":
        raise AnymodalError(
            f"embed.precision is {params.embed.precision}, but a pack's embeddings are made "
            "already: set it to float32, or dataset.source to one of raw media"
        )
    root = source_root(context)
    clips = context.clips
    pack = read_pack(root) if params.dataset.source == "pack" else None
    reports = []
    with (
        context.stage_run("embed") as run,
        open_engine(params.embed.engine, params.embed.workers) as engine,
    ):
        run.log_dataset(clips, context.dataset_ref, "all")
        for name in params.encoders:
            with context.progress(f"embed {name}") as advance:
                if pack is not None:
                    modality = registry.info(name).modality
                    wanted = clips.loc[clips[modality].notna(), "clip_id"]
                    report = materialise(pack, name, wanted, workspace.embeddings)
                    advance(len(wanted), len(wanted))
                else:
                    encoder = registry.get(
                        name, params.embed.device, precision=params.embed.precision
                    )
                    error = _error(encoder, params.embed, clips, root)
                    report = extract(
                        clips,
                        root,
                        encoder,
                        workspace.embeddings,
                        batch_size=params.embed.batch_size,
                        workers=params.embed.workers,
                        chunk=params.embed.chunk,
                        progress=advance,
                        engine=engine,
                    )
                    report = replace(report, precision_error=error)
            reports.append(report)
            logged = {metric_name(of, name): getattr(report, of) for of in _LOGGED}
            run.log_metrics({of: value for of, value in logged.items() if value is not None})
        failures = [report.failures.assign(encoder=report.encoder) for report in reports]
        if any(len(table) for table in failures):
            run.log_table(pd.concat(failures, ignore_index=True), "failures")
    return reports


def _error(encoder: Encoder, params: EmbedParams, clips: pd.DataFrame, root: Path) -> float | None:
    """What the encoder's precision costs on the first clips, if it is not float32's and any of
    them can be decoded."""
    if params.precision == "float32":
        return None
    present = clips.loc[clips[encoder.modality].notna(), ["clip_id", encoder.modality, "start_s"]]
    decoded = [
        decode(Item(clip_id, str(root / path), float(start)), InputSpec.of(encoder))
        for clip_id, path, start in present.head(_MEASURED).itertuples(index=False)
    ]
    items = [item for item in decoded if isinstance(item, np.ndarray)]
    if not items:
        return None
    error = precision_error(registry.get(encoder.name, params.device), encoder, items)
    if not np.isfinite(error):
        raise AnymodalError(
            f"{encoder.name} exceeds the range of {params.precision}: set embed.precision to "
            "bfloat16 or float32"
        )
    return error
