import asyncio
from pathlib import Path
from types import SimpleNamespace

import gradio
import pytest

from anymodal.app.page import build_page
from anymodal.app.responder import Responder


def test_addresses_in_place_of_files_are_not_fetched(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"audio")
    classifier = SimpleNamespace(classes=("bell",), facts={}, reference=None)
    page = build_page(Responder(classifier, None, lambda content, name: None), 5)
    blocks = {block.elem_id: block for block in page.blocks.values() if block.elem_id}
    for name in ("am-file", "am-audio", "am-image", "am-video"):
        with pytest.raises(gradio.Error, match="not an address"):
            asyncio.run(blocks[name].async_move_resource_to_block_cache("http://127.0.0.1/x.wav"))
    moved = blocks["am-file"].async_move_resource_to_block_cache(str(tmp_path / "x.wav"))
    assert Path(asyncio.run(moved)).read_bytes() == b"audio"
