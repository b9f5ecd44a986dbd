"""Stage `mixing`: a killed run resumes, and its result is the same."""

import shutil
import signal
import time


def test_a_killed_curve_resumes(finished, tmp_path):
    project = finished.duplicate(tmp_path / "project")
    curve = project.workspace.mixing_curve
    expected = curve.read_bytes()
    shutil.rmtree(curve.parent)
    running = project.start("anymodal", "mixing")
    journals = project.workspace.scratch / "mixing"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        if any(len(path.read_text().splitlines()) >= 4 for path in journals.glob("*.jsonl")):
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not curve.exists(), "the kill came too late to show anything"
    (journal,) = journals.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) >= 4
    project.invoke("mixing")
    assert curve.read_bytes() == expected
    assert not journal.exists()
