"""kill -9 during a stage, then the same command again: the same results."""

import hashlib
import shutil
import signal
import time


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".safetensors", ".npy")
    }


def kill_when(process, condition, seconds=120):
    """SIGKILL the process as soon as `condition()`; False when it ended before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        if condition():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    process.kill()
    raise AssertionError("it did not happen in time")


def test_killed_embed_and_translate_end_in_the_same_results(finished, tmp_path):
    project = finished.duplicate(tmp_path / "project")
    (project.folder / "data").symlink_to(finished.folder / "data")
    cache = project.workspace.embeddings
    shutil.rmtree(cache)
    process = project.start("anymodal", "embed")
    assert kill_when(process, lambda: (cache / "musicnn_mtt.json").exists())
    project.invoke("embed")
    assert digests(cache) == digests(finished.workspace.embeddings)

    pair = "musicnn_mtt+efficientnet_lite0"
    outputs = project.folder / "artifacts/projections" / pair
    shutil.rmtree(outputs)
    words = ("anymodal", "translate", "--audio", "musicnn_mtt", "--image", "efficientnet_lite0")
    # the first of two trainings is done, the second is not
    assert kill_when(project.start(*words), lambda: (outputs / "seed-0/history.json").exists())
    assert not (outputs / "training.json").exists()
    project.run(*words)
    assert digests(outputs) == digests(finished.folder / "artifacts/projections" / pair)
