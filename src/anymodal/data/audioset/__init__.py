"""AudioSet as a source of clips: filmed, so that sound and picture are the same moment.

lists       the published segment lists, read and checked
selection   which segments serve which subset, drawn as in section 3.1 of the paper
plan        the table that selection writes and fetching reads
hashing     seeded numbers that depend on a segment alone, never on its row
fetch       a plan's clips into shards: downloader (ytdlp, ffmpeg), excerpt, tries, roster
ledger      what became of every clip that was tried (verdicts); shards hold those that are had
yields      the clip table of what was fetched, and the account of it

AudioSet is made available by Google Inc. under CC BY 4.0 (https://research.google.com/audioset);
the lists name videos and hold no media.
"""
