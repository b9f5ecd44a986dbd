from importlib.util import find_spec

import pytest

from helpers.appdata import small_classifier

collect_ignore_glob = [] if find_spec("gradio") else ["test_*.py"]


@pytest.fixture(scope="session")
def classifier():
    return small_classifier()
