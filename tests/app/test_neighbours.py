import numpy as np
import pytest
from PIL import Image

from anymodal.app.media_folder import MediaFolder
from anymodal.app.neighbours import nearest_cards, nearest_files, neighbours_html
from anymodal.classifier.reference import Reference
from helpers.appdata import item, reference, text_of


@pytest.mark.parametrize(("per_file", "files", "count"), [(3, 3, 1), (3, 3, 50), (40, 2, 6)])
@pytest.mark.parametrize("modality", ["audio", "image"])
def test_the_nearest_row_of_each_file_nearest_first(per_file, files, count, modality):
    rows = reference(per_file, files)
    table = rows.table.assign(cosine=rows.vectors @ rows.vectors[4])
    table = table[table["modality"] == modality].sort_values("cosine", ascending=False)
    expected = table.drop_duplicates("path").head(count)
    neighbours = nearest_files(rows, rows.vectors[4], count, modality)
    assert [one.clip_id for one in neighbours] == list(expected["clip_id"])
    assert [one.cosine for one in neighbours] == pytest.approx(list(expected["cosine"]))


def test_cards_have_the_media_that_are_there(tmp_path):
    rows, (_, answer) = reference(), item((1, True))
    path = nearest_files(rows, rows.vectors[0], 1, "image")[0].path
    (tmp_path / path).parent.mkdir(parents=True)
    Image.new("RGB", (20, 20), "teal").save(tmp_path / path, format="PNG")
    cards = nearest_cards(rows, rows.vectors[0], 2, MediaFolder(tmp_path))
    assert [card.preview is not None for card in cards["image"]] == [True, False]
    assert [card.preview for card in cards["audio"]] == [None, None]
    html = neighbours_html(answer, cards, True)
    assert "4 of 4 are banjo" in html
    assert html.count("not in the media folder") == 3
    assert text_of(html).count("source toy") == 4
    assert html.count('alt="image of banjo') == html.count("<img") == 1
    without = nearest_cards(rows, rows.vectors[0], 2, None)
    html = neighbours_html(answer, without, False)
    assert "--media" in html and "not in the media folder" not in html


def test_an_empty_reference_has_no_cards():
    rows, (_, answer) = reference(), item((1, True))
    cards = nearest_cards(Reference(rows.table.iloc[:0], rows.vectors[:0]), np.ones(6), 4, None)
    assert cards == {"audio": [], "image": []}
    assert "classify.reference_rows" in neighbours_html(answer, cards, True)
