"""What is remembered of every clip that was tried."""

from __future__ import annotations

import json

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.ledger import NAME, Entry, Ledger
from anymodal.data.audioset.status import Status


def entry(key="a@0+0", status=Status.DONE, **more):
    return Entry(key=key, video_id=key.partition("@")[0], status=status, **{"attempts": 1, **more})


def test_it_remembers(tmp_path):
    path = tmp_path / NAME
    ledger = Ledger(path)
    ledger.record(entry("a@0+0", clip_id="c" * 16, shard="s.tar", width=3, height=2))
    ledger.record(entry("b@0+0", Status.GONE, error="ünavailable"))
    ledger.record(entry("c@0+0", Status.FAILED, attempts=3))
    again = Ledger(path)
    assert again.done["a@0+0"].clip_id == "c" * 16
    assert again.latest("b@0+0").error == "ünavailable"
    assert again.latest("b@0+0").time.endswith("+00:00")
    assert again.latest("d@0+0") is None
    lines = [json.loads(each) for each in path.read_text().splitlines()]
    assert [each["status"] for each in lines] == ["done", "gone", "failed"]


@pytest.mark.parametrize("facts", ['"verdict": "done"', '"status": "done", "mood": "good"'])
def test_ledgers_of_other_versions_are_read(facts, tmp_path):
    path = tmp_path / NAME
    path.write_text(f'{{"key": "a@0+0", "video_id": "a", {facts}}}\n')
    assert Ledger(path).done["a@0+0"].status is Status.DONE


def test_what_lasts(tmp_path):
    ledger = Ledger(tmp_path / NAME)
    for name, status, remote in (
        ("gone", Status.GONE, True),
        ("broken", Status.BROKEN, True),
        ("absent", Status.ABSENT, False),
        ("local", Status.BROKEN, False),
        ("outage", Status.OUTAGE, True),
        ("done", Status.DONE, True),
    ):
        ledger.record(entry(f"{name}@5+0", status, remote=remote))
    ledger.record(entry("done@7+0"))
    ledger.record(entry("done@7+0", Status.LOST))

    def status(name, window=5, remote=True):
        return ledger.status(f"{name}@{window}+0", name, remote=remote, give_up=5)

    assert status("gone") == status("gone", window=8) == "gone"
    assert status("broken") == "broken"
    assert status("broken", window=8) is None
    assert status("gone", remote=False) is status("broken", remote=False) is None
    assert status("absent") is status("local") is status("outage") is None
    assert status("done") == status("done", remote=False) == "done"
    assert status("done", window=7) is None
    for _ in range(2):
        ledger.record(entry("shy@5+0", Status.FAILED, attempts=2))
    assert status("shy") is None
    ledger.record(entry("shy@5+0", Status.FAILED, attempts=1))
    assert status("shy") == "broken"


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"status": "odd"}'])
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / NAME
    ledger = Ledger(path)
    ledger.record(entry())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(AnymodalError, match="line 2 is damaged"):
        Ledger(path)
