"""AudioSet as a source of clips: audio and image of a clip are the same second of one video.

lists       the published segment lists, read and checked
selection   which segments serve which subset, drawn as in section 3.1 of the paper
plan        the table that selection writes and fetching reads
queue       which clips of a plan are to be fetched, and which replace the dead
retry       the attempts at one clip: a downloader (local, ytdlp), ffmpeg, excerpt
ledger      the status of every clip that was tried; shards hold those that are done
fetch       a run of fetching, resumable
results     the clip table of what was fetched, and the account of it

AudioSet is made available by Google Inc. under CC BY 4.0 (https://research.google.com/audioset);
the lists name videos and hold no media.
"""
