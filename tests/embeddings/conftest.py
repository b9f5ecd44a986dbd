"""A small folder of media and the pack that is built of it."""

import pytest

from helpers.packs import build, write_media


@pytest.fixture(scope="package")
def pack_media(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="package")
def built(pack_media, tmp_path_factory):
    out = tmp_path_factory.mktemp("pack") / "data"
    build(pack_media, out)
    return out
