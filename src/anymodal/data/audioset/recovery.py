"""Ledger and shards made to agree, after a run that was killed or files that were removed."""

from __future__ import annotations

from anymodal.data.audioset.ledger import Entry, Ledger
from anymodal.data.audioset.shards import Shards, Stored
from anymodal.data.audioset.status import Verdict


def reconcile(ledger: Ledger, shards: Shards) -> None:
    """Note as done what lies in a shard, and as lost what is said to be done and does not.

    The growing shard and those that the ledger does not name are read. A finished shard that it
    names is taken at its word: its clips were noted before it was finished. So a ledger that was
    removed comes back with all that is done (and with no verdict on what is dead).
    """
    named = {entry.shard for entry in ledger.done.values()}
    finished = shards.finished
    unknown = sorted(finished - named)
    if shards.unfinished:
        unknown.append(shards.unfinished)
    stored = {clip.key: clip for shard in unknown for clip in shards.clips(shard)}
    for key, entry in list(ledger.done.items()):
        found = stored.get(key)
        if entry.shard not in finished and (found is None or found.shard != entry.shard):
            ledger.record(Entry(key, entry.video_id, Verdict.LOST, 0, f"{entry.shard} lacks it"))
    taken = {entry.clip_id for entry in ledger.done.values()}
    for clip in stored.values():
        if clip.key not in ledger.done and clip.clip_id not in taken:
            taken.add(clip.clip_id)
            ledger.record(_entry(clip))


def _entry(clip: Stored) -> Entry:
    return Entry(
        clip.key,
        str(clip.facts.get("video_id", "")),
        Verdict.DONE,
        0,
        via="found in the shard",
        clip_id=clip.clip_id,
        shard=clip.shard,
        width=int(clip.facts.get("width", 0)),
        height=int(clip.facts.get("height", 0)),
    )
