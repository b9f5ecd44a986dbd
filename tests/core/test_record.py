import math

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.core.record import Record


class Score(Record):
    name: str
    value: float | None = None


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "scores" / "score.json"
    Score(name="ndcg", value=0.1 + 0.2).write(path)
    assert Score.read(path, "retrieve") == Score(name="ndcg", value=0.1 + 0.2)
    Score(name="ndcg", value=math.nan).write(path)
    assert Score.read(path, "retrieve").value is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "first"),
        ("{", "not valid JSON"),
        ("[]", "the file"),
        ('{"name": "a", "value": "high"}', "value: "),
        ('{"name": "a", "other": 1}', "other: "),
    ],
)
def test_unreadable_files_name_the_stage(tmp_path, content, reason):
    path = tmp_path / "score.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AnymodalError, match="anymodal retrieve") as caught:
        Score.read(path, "retrieve")
    assert str(path) in str(caught.value) and reason in str(caught.value)
