import pytest

from anymodal.core.errors import AnymodalError
from anymodal.core.journal import Journal

ENTRIES = [{"key": "a", "score": 0.1 + 0.2}, {"key": "Ü"}, {"key": "c", "score": None}]


def test_entries_come_back_in_order(tmp_path):
    path = tmp_path / "work" / "log.jsonl"
    journal = Journal(path)
    assert journal.entries == [] and not path.exists()
    for entry in ENTRIES:
        journal.append(entry)
    assert journal.entries == ENTRIES == Journal(path).entries


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_line_cut_short_is_dropped_and_overwritten(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    for entry in ENTRIES:
        Journal(path).append(entry)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    journal = Journal(path)
    assert journal.entries == ENTRIES[:2]
    journal.append(ENTRIES[2])
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", ["{", "3", '"text"'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"key": "a"}}\n{line}\n')
    with pytest.raises(AnymodalError, match="line 2 is damaged"):
        Journal(path)
