"""What a shard says of where its clips were taken from, and whether they are still the same files.

Beside a clip's sound and picture lies a note of the video, of the second and of the frame that
they were cut from (`shards`), and the clip's id is the hash of both files: so that sound and
picture are of the same second can be shown long after the video is gone.
"""

from __future__ import annotations

import json

from anymodal.core import archive
from anymodal.core.errors import MediaError
from anymodal.data.audioset.excerpt import content_id
from anymodal.data.quality import Trace


def trace(clip_id: str, audio: str | None, image: str | None) -> Trace:
    """Where the clip's files come from; `audio` and `image` are paths of members of shards."""
    if audio is None or image is None:
        return Trace(damage="it lacks its sound or its picture")
    shard = archive.split_member(audio)
    if shard is None:
        return Trace(damage="its sound is no member of a shard")
    try:
        sound, picture = archive.read_member(audio), archive.read_member(image)
        facts = json.loads(archive.read_member(archive.member_path(shard[0], f"{clip_id}.json")))
        video_id = str(facts["video_id"])
        offset_s = float(facts["frame_s"]) - float(facts["moment_s"])
    except MediaError as error:
        return Trace(damage=" ".join(str(error).split()))
    except (ValueError, KeyError, TypeError):
        return Trace(damage="its note in the shard cannot be read")
    intact = content_id(sound, picture) == clip_id
    # times are kept in seconds, of which milliseconds are not exact
    return Trace(video_id, round(offset_s, 6), None if intact else "its files are not those noted")
