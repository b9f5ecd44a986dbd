"""Members of tar files as media."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal import archive, media
from anymodal.errors import MediaError


def pack(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 48_000, format="FLAC")
    return file.getvalue()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def test_paths_are_taken_apart():
    assert archive.member_path("shards/a.tar", "b.flac") == "shards/a.tar!b.flac"
    found = archive.split_member("/x/a.tar!d/b.flac")
    assert found is not None
    assert (found[0].as_posix(), found[1]) == ("/x/a.tar", "d/b.flac")
    for path in ("a.tar", "a.tar!", "a!b.flac", "wow!.flac", ""):
        assert archive.split_member(path) is None
        assert not archive.is_member(path)


def test_members_are_read(tmp_path):
    contents = {"a.flac": b"one", "d/b.jpg": b"\x00" * 5000, "empty": b""}
    pack(tmp_path / "a.tar", contents)
    for name, content in contents.items():
        assert archive.read_member(f"{tmp_path}/a.tar!{name}") == content


def test_media_come_out_of_a_tar(tmp_path):
    sound = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 48_000) * 32768) / 32768
    pixels = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    pack(tmp_path / "s.tar", {"x.flac": flac(sound), "x.png": png(pixels), "none.flac": b""})
    audio, image = (tmp_path / f"s.tar!x.{ending}" for ending in ("flac", "png"))
    assert media.sniff(audio) == "audio"
    assert media.sniff(str(image)) == "image"
    np.testing.assert_array_equal(media.load_audio(audio, 48_000), sound.astype(np.float32))
    assert media.audio_duration(audio) == 1.0
    np.testing.assert_array_equal(media.load_image(image), pixels)
    with pytest.raises(MediaError, match=r"s\.tar!none\.flac: is empty"):
        media.load_audio(tmp_path / "s.tar!none.flac", 48_000)


def test_what_is_not_there_is_named(tmp_path):
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
        media.load_audio(tmp_path / "none.tar!a.flac", 48_000)


def test_a_file_of_that_name_comes_first(tmp_path):
    path = tmp_path / "odd.tar!x.png"
    pixels = np.zeros((2, 2, 3), np.uint8)
    path.write_bytes(png(pixels))
    np.testing.assert_array_equal(media.load_image(path), pixels)


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


def test_many_threads_and_many_tars(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_KEPT", 3)
    expected = {}
    for number in range(6):
        members = {f"m{each}": f"{number}-{each}".encode() * 50 for each in range(40)}
        pack(tmp_path / f"{number}.tar", members)
        expected |= {f"{tmp_path}/{number}.tar!{name}": each for name, each in members.items()}
    paths = list(expected) * 3
    np.random.default_rng(0).shuffle(paths)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(archive.read_member, paths))
    assert found == [expected[path] for path in paths]
    assert len(archive._tables) <= 3
