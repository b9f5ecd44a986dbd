import pandas as pd
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import COLUMNS, SCHEMA, read_clips, validate, write_clips


def clip(clip_id, **values):
    row = {
        "clip_id": clip_id, "audio": "a.wav", "image": None, "start_s": 0.0, "labels": ["/m/0342h"],
        "instrument": "guitar", "source": "here", "group": clip_id, "pairing": "class",
        "subset": "translation", "split": "train",
    }  # fmt: skip
    return row | values


def table(*rows):
    return pd.DataFrame(rows)


def test_a_table_comes_back_as_it_was_written(tmp_path):
    clips = table(clip("a"), clip("b", audio=None, image="b.jpg", instrument=None, labels=[]))
    write_clips(tmp_path / "clips.parquet", clips)
    back = read_clips(tmp_path / "clips.parquet")
    assert list(back.columns) == list(COLUMNS)
    write_clips(tmp_path / "none.parquet", SCHEMA.empty_table().to_pandas())
    assert read_clips(tmp_path / "none.parquet").empty
    assert back["labels"].to_list() == [["/m/0342h"], []]
    assert back["audio"].isna().to_list() == [False, True]
    assert back["instrument"].isna().to_list() == [False, True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((clip("a"), clip("a")), "repeats a clip_id"),
        ((clip("a", audio=None),), "neither audio nor image"),
        ((clip("a", start_s=-1.0),), "negative start_s"),
        ((clip("a", subset="training"),), "subset other than"),
        ((clip("a", split="dev"),), "split other than"),
        ((clip("a", pairing="guess"),), "pairing other than"),
        ((clip("a", split=None),), "subset or split alone"),
        ((clip("a", group=None),), "has no group"),
        ((clip("a"), clip("b", pairing="clip", image="b.jpg")), "mixes clip and class"),
        ((clip("a", group="g"), clip("b", group="g", split="valid")), "group 'g'"),
        ((clip("a", group="g"), clip("b", group="g", subset="retrieval")), "group 'g'"),
    ],
)
def test_a_broken_contract_is_named(rows, message):
    with pytest.raises(AnymodalError, match=message):
        validate(table(*rows))
    with pytest.raises(AnymodalError, match="lacks the column"):
        validate(table(*rows).drop(columns="labels"))


def test_bad_files_are_one_line(tmp_path):
    with pytest.raises(AnymodalError, match="run `anymodal dataset` first"):
        read_clips(tmp_path / "absent.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(AnymodalError, match="not a readable parquet file"):
        read_clips(tmp_path / "broken.parquet")
