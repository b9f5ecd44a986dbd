import subprocess
import sys

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.core.locking import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from anymodal.core.locking import exclusive
with exclusive(Path(sys.argv[1]), "held"):
    print("holding", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_until_the_first_ends(tmp_path):
    path = tmp_path / "folder" / ".lock"
    with (
        exclusive(path, "first"),
        pytest.raises(AnymodalError, match="second"),
        exclusive(path, "second"),
    ):
        raise AssertionError("held twice")
    with exclusive(path, "third"):
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    path = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(AnymodalError, match="another"), exclusive(path, "another holds it"):
            raise AssertionError("held twice")
    finally:
        holder.kill()
        holder.wait()
    with exclusive(path, "free again", timeout_s=10):
        pass
