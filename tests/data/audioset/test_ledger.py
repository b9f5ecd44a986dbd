"""Statuss, ledger and shards: what is remembered, and what a crash leaves of it."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.excerpt import Excerpt, content_id
from anymodal.data.audioset.fetch import recover
from anymodal.data.audioset.ledger import NAME, Entry, Ledger
from anymodal.data.audioset.shards import Shards, whole_clips
from anymodal.data.audioset.status import DEAD, LASTING, FetchError, Status, error_of


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("[youtube] aaaaaaaaaaa: Video unavailable", "gone"),
        ("Video unavailable. This video has been removed by the uploader", "gone"),
        ("This video is no longer available because the YouTube account associated with this "
         "video has been terminated.", "gone"),
        ("This video is no longer available due to a copyright claim by X", "gone"),
        ("This video has been removed for violating YouTube's WorkerConfig of Service", "gone"),
        ("This video isn't available anymore", "gone"),
        ("This live stream recording is not available.", "gone"),
        ("HTTP Error 404: Not Found", "gone"),
        ("HTTP Error 410: Gone", "gone"),
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("This video is available to this channel's members on level: Fan. Join this channel to "
         "get access to members-only content", "private"),
        ("This video requires payment to watch", "private"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age"),
        ("This video is age-restricted and only available on YouTube.", "age"),
        ("The uploader has not made this video available in your country", "blocked"),
        ("Video unavailable. This video contains content from X, who has blocked it in your "
         "country on copyright grounds", "blocked"),
        ("Video unavailable. This video contains content from X, who has blocked it on copyright "
         "grounds", "blocked"),
        ("Video unavailable. This video is not available in your country", "blocked"),
        ("HTTP Error 451: Unavailable For Legal Reasons", "blocked"),
        ("moov atom not found\nInvalid data found when processing input", "broken"),
        ("Unsupported URL: http://127.0.0.1/", "broken"),
        # nothing of this is the video's fault
        ("Sign in to confirm you’re not a bot. Use --cookies", "failed"),
        ("Video unavailable. This content isn't available, try again later. The current session "
         "has been rate-limited by YouTube", "failed"),
        ("Requested format is not available. Use --list-formats", "failed"),
        ("The following content is not available on this app.", "failed"),
        ("Only images are available for download.", "failed"),
        ("Decoder (codec av1) not found for input stream #0:0", "failed"),
        ("HTTP Error 403: Forbidden", "failed"),
        ("HTTP Error 503: Service Unavailable", "failed"),
        ("Server returned 404 Not Found", "failed"),
        ("Connection timed out", "failed"),
        ("[Errno -3] Temporary failure in name resolution", "failed"),
        ("something that nobody has seen before", "failed"),
        ("", "failed"),
    ],
)  # fmt: skip
def test_words_are_read(words, status):
    error = error_of(f"ERROR: [youtube] 429404451-x: {words}")
    assert error.status == status
    if status in ("gone", "private", "age", "blocked"):
        assert not error.again
    if status == "failed":
        assert error.again
    assert error.throttled == any(each in words for each in ("bot", "rate-limited"))


def test_a_status_outweighs_words():
    def read(status, text="Video unavailable"):
        return error_of(text, status, 7.0)

    assert [read(each).status for each in (404, 410, 401, 451)] == [
        "gone", "gone", "private", "blocked",
    ]  # fmt: skip
    assert [read(each).status for each in (403, 408, 500, 502, 503)] == ["failed"] * 5
    assert read(429).throttled
    assert read(429).after_s == 7.0
    # the site's service, not the video's page
    assert read(404, "Unable to download API page: HTTP Error 404").status == "failed"
    assert "403" in str(read(403))


def test_an_error_is_one_short_line():
    text = str(
        FetchError(Status.FAILED, "\x1b[0;31mERROR:\x1b[0m a\nb [http @ 0x55ae] c " + "d" * 999)
    )
    assert text.startswith("a b c d")
    assert len(text) == 300


def entry(key="a@0+0", status=Status.DONE, **more):
    return Entry(key=key, video_id=key.partition("@")[0], status=status, **{"attempts": 1, **more})


class TestLedger:
    def test_it_remembers(self, tmp_path):
        path = tmp_path / NAME
        ledger = Ledger(path)
        ledger.record(entry("a@0+0", clip_id="c" * 16, shard="s.tar", width=3, height=2))
        ledger.record(entry("b@0+0", Status.GONE, error="ünavailable"))
        ledger.record(entry("c@0+0", Status.FAILED, attempts=3))
        again = Ledger(path)
        assert again.done["a@0+0"].clip_id == "c" * 16
        assert again.latest("b@0+0").error == "ünavailable"
        assert again.latest("b@0+0").time.endswith("+00:00")
        assert again.latest("d@0+0") is None
        lines = [json.loads(each) for each in path.read_text().splitlines()]
        assert [each["status"] for each in lines] == ["done", "gone", "failed"]

    def test_what_lasts(self, tmp_path):
        ledger = Ledger(tmp_path / NAME)
        for name, status, remote in (
            ("gone", Status.GONE, True),
            ("broken", Status.BROKEN, True),
            ("absent", Status.ABSENT, False),
            ("local", Status.BROKEN, False),
            ("outage", Status.OUTAGE, True),
            ("done", Status.DONE, True),
        ):
            ledger.record(entry(f"{name}@5+0", status, remote=remote))
        ledger.record(entry("done@7+0"))
        ledger.record(entry("done@7+0", Status.LOST))

        def status(name, window=5, remote=True):
            return ledger.status(f"{name}@{window}+0", name, remote=remote, give_up=5)

        assert status("gone") == status("gone", window=8) == "gone"
        assert status("broken") == "broken"
        assert status("broken", window=8) is None
        assert status("gone", remote=False) is status("broken", remote=False) is None
        assert status("absent") is status("local") is status("outage") is None
        assert status("done") == status("done", remote=False) == "done"
        assert status("done", window=7) is None
        for _ in range(2):
            ledger.record(entry("shy@5+0", Status.FAILED, attempts=2))
        assert status("shy") is None
        ledger.record(entry("shy@5+0", Status.FAILED, attempts=1))
        assert status("shy") == "broken"

    def test_a_torn_last_line_is_dropped(self, tmp_path):
        path = tmp_path / NAME
        ledger = Ledger(path)
        ledger.record(entry("a@0+0"))
        ledger.record(entry("b@0+0"))
        whole = path.read_bytes()
        first = whole.index(b"\n") + 1
        for end in (first + 1, len(whole) - 1, first):
            path.write_bytes(whole[:end])
            ledger = Ledger(path)
            assert set(ledger.done) == {"a@0+0"}
            ledger.record(entry("c@0+0"))
            assert set(Ledger(path).done) == {"a@0+0", "c@0+0"}

    @pytest.mark.parametrize("line", [b"{}", b"nonsense", b"[1]", b'{"status": "odd"}', b"\xff"])
    def test_a_damaged_line_is_named(self, line, tmp_path):
        path = tmp_path / NAME
        ledger = Ledger(path)
        ledger.record(entry())
        path.write_bytes(path.read_bytes() + line + b"\n")
        with pytest.raises(AnymodalError, match="line 2 is damaged"):
            Ledger(path)

    def test_fields_of_a_later_version_are_passed_over(self, tmp_path):
        path = tmp_path / NAME
        path.write_text('{"key": "a@0+0", "video_id": "a", "status": "done", "mood": "good"}\n')
        assert set(Ledger(path).done) == {"a@0+0"}

    def test_every_lasting_status_is_a_death(self):
        assert LASTING < DEAD
        assert not DEAD & {Status.DONE, Status.FAILED, Status.OUTAGE, Status.LOST}


def clip(number: int, size: int = 700) -> Excerpt:
    content = np.random.default_rng(number).bytes(size)
    return Excerpt(content[: size // 2], content[size // 2 :], 4, 3)


def facts(number: int) -> dict:
    return {"key": f"v{number}@0+0", "video_id": f"v{number}", "width": 4, "height": 3}


def fill(folder, count, limit=10**9, begin=0):
    with Shards(folder, limit) as shards:
        return [shards.add(clip(number), facts(number)) for number in range(begin, count)]


class TestShards:
    def test_any_tar_program_reads_them(self, tmp_path):
        assert set(fill(tmp_path, 3)) == {"audioset-000000.tar"}
        with tarfile.open(tmp_path / "audioset-000000.tar") as tar:
            members = tar.getmembers()
            ids = [clip(number).clip_id for number in range(3)]
            assert [each.name for each in members] == [
                name + suffix for name in ids for suffix in (".flac", ".jpg", ".json")
            ]
            assert {(each.mtime, each.uid, each.uname) for each in members} == {(0, 0, "")}
            assert tar.extractfile(members[1]).read() == clip(0).jpg
            assert json.load(tar.extractfile(members[2])) == facts(0)
        assert (tmp_path / "audioset-000000.tar").stat().st_size % tarfile.RECORDSIZE == 0

    def test_sizes_are_kept_to(self, tmp_path):
        limit = 3 * tarfile.RECORDSIZE
        names = fill(tmp_path, 40, limit)
        files = sorted(each.name for each in tmp_path.iterdir())
        assert files == sorted(set(names))
        assert len(files) > 2
        assert all((tmp_path / each).stat().st_size <= limit for each in files)
        with Shards(tmp_path, limit) as shards:
            assert shards.add(clip(99, 10**6), facts(99)) == f"audioset-{len(files):06d}.tar"

    def test_the_same_clips_give_the_same_file(self, tmp_path):
        fill(tmp_path / "one", 5)
        fill(tmp_path / "two", 5)
        one, two = (tmp_path / each / "audioset-000000.tar" for each in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()

    def test_nothing_leaves_nothing(self, tmp_path):
        with Shards(tmp_path / "s", 100) as shards:
            assert shards.unfinished is None
        assert list((tmp_path / "s").iterdir()) == []

    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def test_a_run_cut_off_anywhere_is_gone_on_with(self, tmp_path_factory, data):
        folder = tmp_path_factory.mktemp("torn")
        fill(folder, 4)
        whole = (folder / "audioset-000000.tar").read_bytes()
        end = data.draw(st.integers(0, len(whole)))
        (folder / "audioset-000000.tar").rename(folder / "audioset-000000.tar.partial")
        with (folder / "audioset-000000.tar.partial").open("r+b") as file:
            file.truncate(end)
        with Shards(folder, 10**9) as shards:
            kept = [each.key for each in shards.clips("audioset-000000.tar")]
            assert kept == [facts(number)["key"] for number in range(len(kept))]
            # a clip of this size takes six blocks: header and content, three times
            assert len(kept) == min(4, end // (6 * tarfile.BLOCKSIZE))
            for number in range(len(kept), 4):
                shards.add(clip(number), facts(number))
        assert (folder / "audioset-000000.tar").read_bytes() == whole
        assert len(list(folder.iterdir())) == 1

    def test_damage_in_the_middle_ends_what_is_kept(self, tmp_path):
        fill(tmp_path, 4)
        path = tmp_path / "audioset-000000.tar"
        for spot in (512 * 6 + 600, 512 * 6 + 10, 512 * 10 + 50, 512 * 11):
            content = bytearray(path.read_bytes())
            content[spot : spot + 40] = b"\xff" * 40
            partial = tmp_path / "damaged.tar"
            partial.write_bytes(content)
            assert [each.key for each in whole_clips(partial, "x")] == ["v0@0+0"], spot

    def test_after_an_error_it_stays_unfinished(self, tmp_path):
        with pytest.raises(ZeroDivisionError), Shards(tmp_path, 10**9) as shards:
            shards.add(clip(0), facts(0))
            1 / 0  # noqa: B018
        assert [each.name for each in tmp_path.iterdir()] == ["audioset-000000.tar.partial"]
        fill(tmp_path, 2, begin=1)
        assert len(list(whole_clips(tmp_path / "audioset-000000.tar", "x"))) == 2

    def test_finished_shards_are_not_touched(self, tmp_path):
        fill(tmp_path, 2)
        before = (tmp_path / "audioset-000000.tar").read_bytes()
        assert fill(tmp_path, 4, begin=2) == ["audioset-000001.tar"] * 2
        assert (tmp_path / "audioset-000000.tar").read_bytes() == before

    def test_two_unfinished_shards_are_refused(self, tmp_path):
        for number in (0, 1):
            (tmp_path / f"audioset-00000{number}.tar.partial").write_bytes(b"")
        with pytest.raises(AnymodalError, match="2 unfinished shards"), Shards(tmp_path, 10**9):
            pass

    def test_files_of_others_are_left_alone(self, tmp_path):
        (tmp_path / "audioset-notes.tar.txt").write_text("mine")
        fill(tmp_path, 1)
        assert (tmp_path / "audioset-notes.tar.txt").read_text() == "mine"

    def test_ids_are_content(self):
        one = clip(1)
        assert one.clip_id == content_id(one.flac, one.jpg) != clip(2).clip_id


class TestReconciling:
    def opened(self, folder):
        return Ledger(folder / NAME), Shards(folder / "shards", 10**9)

    def note(self, ledger, number, shard="audioset-000000.tar"):
        ledger.record(entry(facts(number)["key"], clip_id=clip(number).clip_id, shard=shard))

    def test_a_clip_stored_but_not_noted(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            ledger, shards = self.opened(tmp_path)
            with shards:
                for number in range(3):
                    shards.add(clip(number), facts(number))
                    if number < 2:
                        self.note(ledger, number)
                raise KeyboardInterrupt
        ledger, shards = self.opened(tmp_path)
        with shards:
            recover(ledger, shards)
            assert set(ledger.done) == {facts(number)["key"] for number in range(3)}
            assert ledger.done["v2@0+0"].clip_id == clip(2).clip_id
            assert ledger.done["v2@0+0"].width == 4

    def test_a_clip_noted_but_not_stored(self, tmp_path):
        ledger, shards = self.opened(tmp_path)
        with shards:
            shards.add(clip(0), facts(0))
            self.note(ledger, 0)
            self.note(ledger, 1, "audioset-000007.tar")
        ledger, shards = self.opened(tmp_path)
        with shards:
            recover(ledger, shards)
            assert set(ledger.done) == {"v0@0+0"}
            assert ledger.latest("v1@0+0").status == "lost"
            size = (tmp_path / NAME).stat().st_size
            recover(ledger, shards)
            assert (tmp_path / NAME).stat().st_size == size

    def test_a_ledger_that_was_removed_comes_back(self, tmp_path):
        fill(tmp_path / "shards", 2)
        fill(tmp_path / "shards", 4, begin=2)
        ledger, shards = self.opened(tmp_path)
        with shards:
            recover(ledger, shards)
        assert {key: each.shard[-5:-4] for key, each in Ledger(tmp_path / NAME).done.items()} == {
            "v0@0+0": "0", "v1@0+0": "0", "v2@0+0": "1", "v3@0+0": "1",
        }  # fmt: skip


def test_a_growing_shard_is_a_tar_at_any_time(tmp_path):
    with pytest.raises(KeyError), Shards(tmp_path, 10**9) as shards:
        shards.add(clip(0), facts(0))
        content = (tmp_path / "audioset-000000.tar.partial").read_bytes()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert len(tar.getnames()) == 3
        raise KeyError
