import base64
import io
import os
import tarfile

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.app.media_folder import SOUND_RATE, MediaFolder
from anymodal.errors import AnymodalError


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "audio").mkdir(parents=True)
    soundfile.write(folder / "audio/ramp.wav", np.linspace(0, 0.9, 5 * 8000), 8000)
    Image.new("RGB", (900, 300), "teal").save(folder / "wide.png")
    (tmp_path / "secret.png").write_bytes((folder / "wide.png").read_bytes())
    return folder


def content(address):
    kind, _, data = address.partition(";base64,")
    return kind, io.BytesIO(base64.b64decode(data))


def test_a_picture_comes_reduced(root):
    kind, file = content(MediaFolder(root).preview("wide.png", "image", 0.0))
    assert kind == "data:image/jpeg"
    assert Image.open(file).size == (360, 120)


def test_a_sound_plays_from_the_clips_start(root):
    kind, file = content(MediaFolder(root).preview("audio/ramp.wav", "audio", 2.0))
    samples, rate = soundfile.read(file)
    assert (kind, rate, len(samples)) == ("data:audio/wav", SOUND_RATE, 2 * SOUND_RATE)
    assert samples[1000] == pytest.approx(0.9 * (2 + 1000 / rate) / 5, abs=0.01)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png", "audio/../../secret.png", "link.png", "folder/secret.png", "",
        "audio", "gone.png", "a\0b", "/etc/passwd", "data.tar!../../secret.png",
        "../out.tar!wide.png", "x" * 5000,
    ],
)  # fmt: skip
def test_nothing_outside_the_folder_is_reached(root, path):
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "folder").symlink_to(root.parent)
    for name in (root / "data.tar", root.parent / "out.tar"):
        with tarfile.open(name, "w") as tar:
            tar.add(root / "wide.png", "wide.png")
    folder = MediaFolder(root)
    assert folder.preview(path, "image", 0.0) is None
    assert folder.preview(str(root.parent / "secret.png"), "image", 0.0) is None
    # and what is inside is
    assert folder.preview("data.tar!wide.png", "image", 0.0) is not None
    assert folder.preview("audio/../wide.png", "image", 0.0) is not None


def test_links_that_stay_inside_are_followed(root):
    (root / "same.png").symlink_to("wide.png")
    assert MediaFolder(root).locate("same.png") == root.resolve() / "wide.png"


def test_what_cannot_be_decoded_is_not_there(root):
    (root / "broken.png").write_bytes((root / "wide.png").read_bytes()[:40])
    folder = MediaFolder(root)
    assert folder.preview("broken.png", "image", 0.0) is None
    assert folder.preview("wide.png", "audio", 0.0) is None
    assert folder.preview("audio/ramp.wav", "audio", 60.0) is None


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_not_there(root):
    (root / "wide.png").chmod(0)
    assert MediaFolder(root).preview("wide.png", "image", 0.0) is None


def test_the_folder_must_be_one(root):
    with pytest.raises(AnymodalError, match=r"wide.png is not a folder"):
        MediaFolder(root / "wide.png")
