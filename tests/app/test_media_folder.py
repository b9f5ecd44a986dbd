import base64
import io
import tarfile
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.app.media_folder import AUDIO_RATE, MediaFolder
from anymodal.core.errors import AnymodalError
from anymodal.media import decoding


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "audio").mkdir(parents=True)
    soundfile.write(folder / "audio/ramp.wav", np.linspace(0, 0.9, 5 * 8000), 8000)
    Image.new("RGB", (60, 30), "teal").save(folder / "wide.png")
    (tmp_path / "secret.png").write_bytes((folder / "wide.png").read_bytes())
    return folder


def test_audio_plays_from_the_clips_start(root):
    kind, _, content = MediaFolder(root).preview("audio/ramp.wav", "audio", 2.0).partition(",")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert (kind, rate, len(samples)) == ("data:audio/wav;base64", AUDIO_RATE, 2 * AUDIO_RATE)
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
    # and what is inside is, through a link as well
    (root / "same.png").symlink_to("wide.png")
    assert folder.preview("same.png", "image", 0.0) is not None
    assert folder.preview("data.tar!wide.png", "image", 0.0) is not None
    assert folder.preview("audio/../wide.png", "image", 0.0) is not None


def test_unreadable_media_have_no_preview(root, monkeypatch):
    with pytest.raises(AnymodalError, match=r"wide.png is not a folder"):
        MediaFolder(root / "wide.png")
    (root / "broken.png").write_bytes((root / "wide.png").read_bytes()[:40])
    folder = MediaFolder(root)
    assert folder.preview("broken.png", "image", 0.0) is None
    assert folder.preview("wide.png", "audio", 0.0) is None
    assert folder.preview("audio/ramp.wav", "audio", 60.0) is None
    monkeypatch.setattr(decoding, "load_image", Mock(side_effect=PermissionError(13, "denied")))
    assert folder.preview("wide.png", "image", 0.0) is None
