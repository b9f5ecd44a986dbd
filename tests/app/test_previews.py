import base64
import io

import numpy as np
from PIL import Image

from anymodal.app.previews import audio_of, frames_of, image_address
from helpers.appdata import item


def test_previews_of_a_long_item_are_bounded():
    windows, _ = item(*[(1, True)] * 40, kind="video")
    assert len(audio_of(windows, 100)) == 1500
    assert [window.start_s for window in frames_of(windows)] == [0, 13, 26, 39]
    still, _ = item((1, True), kind="image")
    assert (len(audio_of(still, 100)), len(frames_of(still))) == (0, 1)


def test_images_are_reduced():
    kind, _, content = image_address(np.zeros((400, 1200, 3), np.uint8)).partition(";base64,")
    assert kind == "data:image/jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (360, 120)
