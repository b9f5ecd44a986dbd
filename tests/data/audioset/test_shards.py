"""Shards, and what a crash leaves of them and of the ledger."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.excerpt import Excerpt
from anymodal.data.audioset.fetch import recover
from anymodal.data.audioset.ledger import NAME, Entry, Ledger
from anymodal.data.audioset.shards import Shards, whole_clips
from anymodal.data.audioset.status import Status


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

    @pytest.mark.slow
    def test_webdataset_reads_them(self, tmp_path):
        webdataset = pytest.importorskip("webdataset")
        fill(tmp_path, 3)
        samples = list(
            webdataset.WebDataset(str(tmp_path / "audioset-000000.tar"), shardshuffle=False)
        )
        assert [each["__key__"] for each in samples] == [
            clip(number).clip_id for number in range(3)
        ]
        assert samples[1]["flac"] == clip(1).flac and json.loads(samples[1]["json"]) == facts(1)

    def test_sizes_are_kept_to(self, tmp_path):
        limit = 3 * tarfile.RECORDSIZE
        names = fill(tmp_path, 40, limit)
        files = sorted(each.name for each in tmp_path.iterdir())
        assert files == sorted(set(names))
        assert len(files) > 2
        assert all((tmp_path / each).stat().st_size <= limit for each in files)
        with Shards(tmp_path, limit) as shards:
            assert shards.add(clip(99, 10**6), facts(99)) == f"audioset-{len(files):06d}.tar"

    @settings(max_examples=10, deadline=None)
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
        with pytest.raises(KeyError), Shards(tmp_path, 10**9) as shards:
            shards.add(clip(0), facts(0))
            content = (tmp_path / "audioset-000000.tar.partial").read_bytes()
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                assert len(tar.getnames()) == 3
            raise KeyError
        assert [each.name for each in tmp_path.iterdir()] == ["audioset-000000.tar.partial"]
        fill(tmp_path, 2, begin=1)
        assert len(list(whole_clips(tmp_path / "audioset-000000.tar", "x"))) == 2

    def test_two_unfinished_shards_are_refused(self, tmp_path):
        for number in (0, 1):
            (tmp_path / f"audioset-00000{number}.tar.partial").write_bytes(b"")
        with pytest.raises(AnymodalError, match="2 unfinished shards"), Shards(tmp_path, 10**9):
            pass


class TestRecovering:
    def opened(self, folder):
        return Ledger(folder / NAME), Shards(folder / "shards", 10**9)

    def note(self, ledger, number, shard="audioset-000000.tar"):
        more = {"status": Status.DONE, "clip_id": clip(number).clip_id, "shard": shard}
        ledger.record(Entry(key=facts(number)["key"], video_id=f"v{number}", **more))

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
