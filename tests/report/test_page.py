"""The page is whole and offline, and shows the numbers of every result."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from anymodal.config.params import Params
from anymodal.core.modality import MODALITIES
from anymodal.evaluation.captions import DIRECTIONS
from anymodal.evaluation.cross_source import PROTOCOLS
from anymodal.evaluation.cross_source_scores import TargetResult
from anymodal.evaluation.retrieval import Untranslated
from anymodal.report.page import clip_counts, render
from helpers.results import LEVELS, report_inputs

SECTIONS = (
    "results", "paper", "cross_source", "mixing", "retrieval", "structure", "classes", "trust",
    "training", "data", "limits", "parameters",
)  # fmt: skip
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Collects what the tests look at; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.headings, self.words = [], [], [], [], []
        self.tables, self.images = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.headings += [tag] if tag in ("h1", "h2", "h3") else []
        self.images += [attrs] if tag == "svg" else []
        if tag == "caption":
            self.tables.append([""])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        if {"style", "svg"} & set(self.open):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data + " "
        elif "caption" in self.open:
            self.tables[-1][0] += data

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def rows(self, caption):
        """Cells of the one table whose caption starts so."""
        (table,) = [table for table in self.tables if table[0].startswith(caption)]
        return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in table[1:]]


@pytest.fixture(scope="module")
def page(typical_page):
    return Page(typical_page)


@pytest.fixture(scope="module")
def small():
    """One seed, one pair, clip-paired, a name to be escaped, systems that fail or were not tested,
    no checks, no account of clips, a classifier of another pair than the selected, retrieval
    without translation, and neither fusion nor sources measured."""
    inputs = report_inputs(
        seeds=1,
        audio=("yamnet",),
        image=("resnet50",),
        classes=("banjo", "flute", "voice"),
        pairing="clip",
        name="AudioSet & <friends> $x$",
        per_class=6,
        skill={("MMT", "zero-shot", "audio"): 0.0, ("SMI", "all", "image"): None},
    )
    openl3 = Untranslated(audio="openl3", image="openl3", audio_to_image=0.7, image_to_audio=0.71)
    calibration, off = inputs.calibration, TargetResult(missing=dict.fromkeys(PROTOCOLS, "off"))

    def changed(record, **fields):
        return record.model_copy(update=fields)

    return dataclasses.replace(
        inputs,
        checks=None,
        retrieval=(changed(inputs.retrieval[0], untranslated=openl3),),
        classification=changed(inputs.classification, pair="vggish+vgg16"),
        dataset=changed(inputs.dataset, account=(), left_out={}),
        calibration=changed(calibration, fusion=changed(calibration.fusion, interval=None)),
        cross_source=changed(inputs.cross_source, targets=dict.fromkeys(MODALITIES, off)),
    )


@pytest.fixture(scope="module")
def small_page(small):
    """Without its figures, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anymodal.report.page.inline_svg", lambda *_: "<svg></svg>")
        return Page(render(small, Params()))


def test_the_page_is_well_formed_and_whole(page, typical_page):
    assert typical_page.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids)) and set(SECTIONS) <= set(page.ids)
    assert page.headings[0] == "h1" and page.headings.count("h1") == 1
    links = [attrs["href"] for tag, attrs in page.attributes if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]
    assert len(typical_page.encode()) < 2_000_000
    assert "{{" not in typical_page and "{%" not in typical_page


def test_nothing_is_fetched(page, typical_page):
    assert "default-src 'none'" in typical_page[: typical_page.index("<style>")]
    assert not re.search(r"https?:|//[a-z]", typical_page)
    for _tag, attrs in page.attributes:
        for name in {"src", "href", "xlink:href", "srcset", "data", "action"} & set(attrs):
            assert attrs[name].startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)", typical_page) and "@import" not in typical_page
    assert not {"script", "iframe", "img", "object"} & {tag for tag, _ in page.attributes}


def test_figures_have_labels_and_tables_captions(page, typical_page):
    assert len(page.images) == 19
    assert all(image["role"] == "img" and len(image["aria-label"]) > 20 for image in page.images)
    assert len({image["aria-label"] for image in page.images}) == len(page.images)
    assert typical_page.count("<figure>") == typical_page.count("<figcaption>") == 19
    regions = {attrs["aria-label"] for _, attrs in page.attributes if attrs.get("role") == "region"}
    assert len(regions) == len(page.tables) == typical_page.count("<table")


def test_the_header_answers_and_names_what_the_answer_rests_on(page, typical):
    head = page.text[: page.text.index("Each system is")]
    result = typical.classification
    for target in MODALITIES:
        zero_shot = result.scores["MMT", "zero-shot", target]
        ends, share = result.intervals_by_key[zero_shot.key], result.zero_shot_share[target]
        for text in (
            f"macro F1 {zero_shot.mean:.3f} (95 % interval {ends.low:.3f} to {ends.high:.3f})",
            f"{100 * share.share:.0f} % ({100 * share.low:.0f} % to {100 * share.high:.0f} %)",
        ):
            assert text in head, text
    for text in (
        "Class-paired data. Audio and images are paired by label alone; nothing was filmed",
        "labels of 1,375 audio clips and 1,375 images", "chance is 0.091", "Seeds 5", "0123abc",
        "macro F1 0.300 (chance 0.100); with training rows of the same sources, 0.860",
    ):  # fmt: skip
        assert text in head, text
    assert "self-superv" not in page.text.lower()


def test_the_table_of_scores(page, typical):
    rows = {row[0]: row for row in page.rows("Macro F1, mean")}
    assert "165 test rows, chance 0.091" in rows["System"][1]
    for key, score in typical.classification.scores.items():
        cell = rows[key[0]][1 + 2 * (key[2] == "image") + (key[1] == "all")]
        ends = typical.classification.intervals_by_key[key]
        assert cell.startswith(
            f"{score.mean:.3f} ± {score.std:.3f} {ends.low:.3f} to {ends.high:.3f} from 198 "
        )
    assert rows["MMT"][2].endswith("from 198 images + 198 audio clips")
    assert rows["SMA"][1] == "–"


def test_the_tables_of_tests_retrieval_and_mixing(page, typical):
    drawn = page.rows("Differences in macro F1")[1:]
    for row, each in zip(drawn, typical.classification.comparisons, strict=True):
        ends = f"{each.low:+.3f} to {each.high:+.3f}"
        assert row[3:] == [f"{each.difference:+.3f}", ends, f"{each.p_holm:.3g}"]
    drawn = page.rows("NDCG@30 among 410 audio clips and 395 images")[2:]
    for row, ranked, result in zip(
        drawn, typical.selection.ranking, typical.retrieval, strict=True
    ):
        assert row[:2] == [ranked.pair.replace("+", " + "), f"{ranked.mean:.3f} ± {ranked.std:.3f}"]
        assert row[2:] == [
            f"{getattr(scores, direction):.3f}"
            for direction in DIRECTIONS
            for scores in (ranked, result.pca, result.random)
        ]
    for target, name in zip(MODALITIES, ("audio", "images"), strict=True):
        (drawn,) = [t for t in page.tables if t[0] == f"Macro F1 on {name}, mean ± standard "
                    "deviation over draws"]  # fmt: skip
        cells = [cell.strip() for row in drawn[2:] for cell in row[1:]]
        points = [p for p in typical.mixing.points if p.target == target]
        points.sort(key=lambda p: (p.samples, p.system == "MMP"))
        assert cells == [f"{p.mean:.3f} ± {p.std:.3f}" for p in points]


def test_the_tables_of_sources(page):
    drawn = {row[0]: row for row in page.rows("Macro F1 on 150 audio clips of 3 sources")}
    for (system, regime), levels in LEVELS.items():
        row = drawn[f"{system}, {'all data' if regime == 'all' else regime}"]
        for cell, level in zip(row[1:4], (levels[0], *levels[1:]), strict=True):
            assert cell == f"{level:.3f} {level - 0.06:.2f} to {level + 0.06:.2f}"
        assert row[4].startswith(f"{levels[0] - levels[2]:+.3f}") and row[4].endswith("p 0.0023")
    room = page.rows("Accuracy on audio by source")[3]
    assert room[:5] == ["room", "72", "5", "90 %", "20 %"]
    assert "Not tested: 15 row(s) of violin, because one source (den)." in page.text
    assert "all image clips are of one source (web)" in page.text


def test_the_tables_of_the_space_the_classes_and_the_trainings(page, typical):
    pca, translated = page.rows("Alignment")[1:]
    assert pca[1] == f"{typical.structure.pca.ratio:.2f}"
    accuracies = [space.accuracy for space in typical.structure.translated]
    assert translated[4] == f"{100 * sum(accuracies) / len(accuracies):.0f} %"
    shown = [c for c in typical.structure.correlations if c.method == "spearman"]
    assert [row[3:] for row in page.rows("Rank correlation")[1:]] == [
        [f"{each.value:+.2f}", f"{each.p_value:.3g}"] for each in shown
    ]
    f1 = page.rows("F1 by class")[1:]
    assert [row[0] for row in f1] == list(typical.classification.classes)
    zero_shot = typical.classification.scores["MMT", "zero-shot", "audio"].mean
    assert sum(float(row[1]) for row in f1) / len(f1) == pytest.approx(zero_shot, abs=0.001)
    assert len({row[1] for row in f1}) > 1
    assert page.rows("Trainings, at most 200 epochs")[1:] == [
        [str(t.seed), str(t.epochs), str(t.best_epoch), f"{t.valid_loss:.3f}"]
        for t in typical.trainings.seeds
    ]


def test_the_tables_of_trust(page):
    assert page.rows("Calibration")[1] == [
        "audio", "165", "0.50", "0.200", "0.020", "91 %", "94 %", "93 %",
    ]  # fmt: skip
    assert page.rows("Accuracy on the same test pairs")[1] == [
        "980, class-paired", "80.0 %", "95.0 %", "97.0 %", "+2.0 points", "-1.0 to +5.0",
    ]  # fmt: skip
    assert page.rows("Synthetic")[1:] == [
        ["noise, clicks and silence", "50", "90 %"], ["plain colours and textures", "50", "98 %"],
    ]  # fmt: skip
    assert "keeps 95 % of the validation rows" in page.text


def test_beside_the_paper_and_data(page, typical):
    shares = typical.classification.zero_shot_share
    for text in (
        "“almost 70%”", f"{100 * shares['image'].share:.0f} % on images", "1,375 per epoch",
        "410 audio clips and 395 images", "cello (audio only), voice (audio only)",
        "Data checks passed: 2 of 3. Not passed: skew (warning): 60 to 1", "files, skipped: 0.",
    ):  # fmt: skip
        assert text in page.text, text
    table = page.rows("Clips by class")
    assert table[:3] == [
        ["Class", "audio", "images"],
        ["translation", "retrieval", "classification"] * 2,
        ["train", "valid", "test", "train", "valid", "test"] * 2,
    ]
    assert table[3][:3] == ["accordion", "80", "14"] and table[-1][1] == "1,375"
    parameters = {row[0]: row[1] for row in page.rows("Parameters")}
    assert parameters["translate.margin"] == "1.0"
    assert not [name for name in parameters if name.startswith(("tracking", "tune", "audioset"))]


def test_clips_without_a_class_have_a_row_and_empty_columns_have_none(typical):
    account = [
        {"instrument": name, "modality": "audio", "subset": subset, "split": split, "taken": taken}
        for name, subset, split, taken in (
            ("flute", "classification", "test", 3), ("flute", "translation", "train", 5),
            ("banjo", "retrieval", "test", 0), ("banjo", "unused", "", 9),
            (None, "translation", "train", 2),
        )
    ]  # fmt: skip
    info = typical.dataset.model_copy(update={"account": tuple(account)})
    counts = clip_counts(dataclasses.replace(typical, dataset=info))
    assert counts["rows"] == [("banjo", [0, 0]), ("flute", [5, 3]), ("several or none", [2, 0])]
    assert counts["totals"] == [7, 3] and counts["translation"] == {"audio": 7}


def test_a_small_run(small_page):
    page = small_page
    assert "anymodal on AudioSet & <friends> $x$" in page.text
    assert not re.search(r"\d ±", page.text[: page.text.index("Tested differences")])
    assert "Clip-paired data." in page.text and "without any label" in page.text
    assert "learned from the labels" not in page.text
    assert "is selected: yamnet + resnet50" in page.text
    assert "The classifiers use vggish + vgg16." in page.text
    assert "No data checks were run." in page.text and "enough data: none." in page.text
    assert "audioset.per_class" in page.text
    assert not [table for table in page.tables if table[0].startswith("Clips by class")]
    assert page.rows("NDCG@30")[2][-1] == "0.710"
    assert "fusion was not measured" in page.text
    measured = "within sources, nor size-matched within sources, nor across sources"
    assert page.text.count(f"Not measured {measured}: off.") == 2
    assert "of sources without any training row" not in page.text


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(typical, typical_page):
    assert render(typical, Params(), "0123abc") == typical_page
