"""Members of tar files as media."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anymodal.core import archive
from anymodal.core.errors import MediaError
from anymodal.media import decoding
from helpers.encoded import encoded_audio, encoded_image


def pack(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_paths_are_split():
    assert archive.member_path("shards/a.tar", "b.flac") == "shards/a.tar!b.flac"
    assert archive.split_member("/x/a.tar!d/b.flac") == (Path("/x/a.tar"), "d/b.flac")
    for path in ("a.tar", "a.tar!", "a!b.flac", "wow!.flac", ""):
        assert archive.split_member(path) is None
        assert not archive.is_member(path)


def test_members_are_read(tmp_path):
    contents = {"a.flac": b"one", "d/b.jpg": b"\x00" * 5000, "empty": b""}
    pack(tmp_path / "a.tar", contents)
    for name, content in contents.items():
        assert archive.read_member(f"{tmp_path}/a.tar!{name}") == content


def test_media_come_out_of_a_tar(tmp_path):
    samples = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 48_000) * 32768) / 32768
    pixels = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    flac = encoded_audio(samples, 48_000, format="FLAC")
    png = encoded_image(Image.fromarray(pixels))
    pack(tmp_path / "s.tar", {"x.flac": flac, "x.png": png, "none.flac": b""})
    audio, image = (tmp_path / f"s.tar!x.{ending}" for ending in ("flac", "png"))
    assert decoding.sniff(audio) == "audio"
    assert decoding.sniff(str(image)) == "image"
    np.testing.assert_array_equal(decoding.load_audio(audio, 48_000), samples.astype(np.float32))
    assert decoding.audio_duration(audio) == 1.0
    np.testing.assert_array_equal(decoding.load_image(image), pixels)
    with pytest.raises(MediaError, match=r"s\.tar!none\.flac: is empty"):
        decoding.load_audio(tmp_path / "s.tar!none.flac", 48_000)


def test_what_is_missing_is_named(tmp_path):
    pack(tmp_path / "a.tar", {"a": b"1"})
    (tmp_path / "text.tar").write_text("no tar at all " * 99)
    for path, words in (
        ("none.tar!a", "none.tar: No such file"),
        ("a.tar!b", "holds no b"),
        ("text.tar!a", "no tar file, or a damaged one"),
        ("a.tar", "names no member"),
    ):
        with pytest.raises(MediaError, match=words) as caught:
            archive.read_member(tmp_path / path)
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="No such file"):
        decoding.load_audio(tmp_path / "none.tar!a.flac", 48_000)


def test_a_file_of_that_name_comes_first(tmp_path):
    path = tmp_path / "odd.tar!x.png"
    pixels = np.zeros((2, 2, 3), np.uint8)
    path.write_bytes(encoded_image(Image.fromarray(pixels)))
    np.testing.assert_array_equal(decoding.load_image(path), pixels)


def test_links_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(MediaError, match="holds no a"):
        archive.read_member(tmp_path / "a.tar!a")


def test_a_tar_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "a.tar"
    pack(path, {"a": b"old"})
    assert archive.read_member(f"{path}!a") == b"old"
    other = tmp_path / "b.tar"
    pack(other, {"before": b"x" * 600, "a": b"new"})
    other.replace(path)
    assert archive.read_member(f"{path}!a") == b"new"


def test_a_tar_that_was_cut_off(tmp_path):
    path = tmp_path / "a.tar"
    pack(path, {"a": b"1" * 600, "b": b"2" * 6000})
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(MediaError, match="damaged"):
        archive.read_member(f"{path}!b")


def test_many_threads_and_many_tars(tmp_path):
    archive._contents.cache_clear()
    expected = {}
    for number in range(6):
        members = {f"m{n}": f"{number}-{n}".encode() * 50 for n in range(40)}
        pack(tmp_path / f"{number}.tar", members)
        expected |= {f"{tmp_path}/{number}.tar!{name}": m for name, m in members.items()}
    paths = list(expected) * 3
    np.random.default_rng(0).shuffle(paths)
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(archive.read_member, paths))
    assert contents == [expected[path] for path in paths]
    assert archive._contents.cache_info().misses == 6, "every table is read once"
