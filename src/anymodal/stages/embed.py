"""Stage `embed`: every encoder's embeddings of every clip, from media or from the pack."""

from __future__ import annotations

import pandas as pd

from anymodal import encoders
from anymodal.cache import ExtractionReport
from anymodal.dataset.pack import read_pack
from anymodal.embedding import extract
from anymodal.stages.base import Context, basis, drawn_clips
from anymodal.stages.dataset import source_root
from anymodal.tracking import stage_run


def embed(context: Context) -> list[ExtractionReport]:
    """Run the stage; return what was embedded, reused and failed, one report an encoder.

    A killed run resumes; embeddings of clips that are in the cache already are kept.
    """
    workspace, params = context.workspace, context.params
    root = source_root(context)
    clips = drawn_clips(workspace)
    pack = read_pack(root) if params.dataset.source == "pack" else None
    reports = []
    with stage_run("embed", params, basis(workspace)) as run:
        run.log_dataset(clips, basis(workspace), "all")
        for name in params.encoders:
            with context.progress(f"embed {name}") as advance:
                if pack is not None:
                    modality = encoders.info(name).modality
                    wanted = clips.loc[clips[modality].notna(), "clip_id"]
                    report = pack.materialise(name, wanted, workspace.embeddings)
                    advance(len(wanted), len(wanted))
                else:
                    report = extract(
                        clips,
                        root,
                        encoders.get(name),
                        workspace.embeddings,
                        batch_size=params.embed.batch_size,
                        workers=params.embed.workers,
                        chunk=params.embed.chunk,
                        progress=advance,
                    )
            reports.append(report)
            run.log_metrics(
                {
                    f"{name}/embedded": report.embedded,
                    f"{name}/reused": report.reused,
                    f"{name}/failed": report.failed,
                    f"{name}/seconds": report.seconds,
                }
            )
        failures = [report.failures.assign(encoder=report.encoder) for report in reports]
        if any(len(table) for table in failures):
            run.log_table(pd.concat(failures, ignore_index=True), "failures")
    return reports
