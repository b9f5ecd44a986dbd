import html
import re
from html.parser import HTMLParser

import pytest

from anymodal.params import Params
from anymodal.report import build_report
from anymodal.report.evidence import read_evidence
from anymodal.storage import read_json, write_json

SECTIONS = (
    "results", "paper", "scores", "across", "mixing", "retrieval", "structure", "classes",
    "training", "data", "limits", "parameters",
)  # fmt: skip
VOID = {"meta", "link", "br"}
SPACE = "\N{NO-BREAK SPACE}"


class Page(HTMLParser):
    """Collects what the tests look at and fails on tags that do not match."""

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
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag == "svg":
            self.images.append(attrs)
        if tag == "table":
            self.tables.append([])
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
        if {"style", "svg"} & set(self.open):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return re.sub(r"[ \n]+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def built(typical_page):
    return typical_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(built):
    return Page(built)


def test_the_page_is_well_formed_and_whole(page, built):
    assert built.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    assert set(SECTIONS) <= set(page.ids)
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1
    links = [attrs["href"] for tag, attrs in page.attributes if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]
    assert len(built.encode()) < 2_000_000
    assert "{{" not in built
    assert "{%" not in built


def test_nothing_is_fetched(built, page):
    assert not re.search(r"https?:|//[a-z]", built)
    for _tag, attrs in page.attributes:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            if name in attrs:
                assert attrs[name].startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)", built)
    assert "@import" not in built
    assert not {"script", "iframe", "img", "object"} & {tag for tag, _ in page.attributes}


def test_figures_have_words_and_tables_captions(page, built):
    assert len(page.images) == 19
    for image in page.images:
        assert image["role"] == "img"
        assert len(image["aria-label"]) > 20
    assert built.count("<table") == built.count("<caption>")
    assert built.count("<figure>") == built.count("<figcaption>") == len(page.images)
    labels = {attrs["aria-label"] for _, attrs in page.attributes if attrs.get("role") == "region"}
    assert len(labels) == len(page.tables)


def test_answers_lead_and_name_their_basis(page, typical):
    rows = {
        (row.system, row.regime, row.target): row for row in read_evidence(typical).results.summary
    }
    zero, single = rows["MMT", "zero-shot", "image"], rows["SMI", "all", "image"]
    head = page.text[: page.text.index("Results")]
    assert f"with macro F1 {zero.mean:.2f} (chance 0.09)" in head
    assert f"{100 * zero.mean / single.mean:.0f}{SPACE}%" in head
    assert "Class-paired data. A sound and a picture belong together only by their label" in head
    assert "nothing was filmed together" in head
    assert "learned from the labels of 1,375 sounds and 1,375 pictures" in head
    for fact in ("instruments", "Seeds 5", "0123abc", "macro F1 0.091", "sounds"):
        assert fact in head, fact


def test_the_table_holds_every_score(page, typical):
    scores = read_evidence(typical).results.summary
    table = page.tables[0]
    places = {("audio", "zero-shot"): 1, ("audio", "all"): 2,
              ("image", "zero-shot"): 3, ("image", "all"): 4}  # fmt: skip
    by_system = {line[0]: line for line in table[2:]}
    assert list(by_system) == ["SMA", "SMI", "MMT", "MMP"]
    for row in scores:
        cell = by_system[row.system][places[row.target, row.regime]]
        assert cell.startswith(f"{row.mean:.3f} ± {row.std:.3f}")
    filled = sum(any(c.isdigit() for c in cell) for line in table[2:] for cell in line[1:])
    assert filled == len(scores)
    assert "165 test rows, chance 0.091" in table[0][1]
    assert "from 198 pictures + 198 sounds" in by_system["MMT"][2]
    assert by_system["MMT"][1].endswith("from 198 pictures")


def test_beside_the_paper(page, typical):
    evidence = read_evidence(typical)
    text = page.text
    assert "“almost 70%”" in text
    best = max(row.mean for row in evidence.results.summary if row.target == "image")
    zero = next(
        row.mean
        for row in evidence.results.summary
        if (row.system, row.regime, row.target) == ("MMT", "zero-shot", "image")
    )
    assert f"{100 * zero / best:.0f}{SPACE}% on pictures" in text
    for words in ("130,000", "1,375 an epoch", "18 (0.056)", "11 (0.091)", "10,000 pairs"):
        assert words in text, words


def test_data_parameters_and_limits(page):
    text = page.text
    assert "cello (audio only), voice (audio only)" in text
    assert "All 2 data checks passed." in text
    assert "sounds range from 80 (accordion) to 170 (violin)" in text
    assert "translate.margin" in text
    assert "sqlite" not in text
    assert "tracking." not in text
    assert "other collections" in text


def test_it_never_calls_class_pairs_self_supervised(built):
    assert "self-superv" not in built.lower()
    assert "selfsuperv" not in built.lower()


def test_the_same_artifacts_give_the_same_bytes(artifacts, params, built):
    elsewhere = build_report(artifacts(), params, "0123abc").read_text(encoding="utf-8")
    assert elsewhere == built


def test_a_poor_run_of_one_seed_and_one_pair(artifacts, params):
    workspace = artifacts(
        seeds=1,
        audio=("yamnet",),
        image=("resnet50",),
        pairing="clip",
        name="AudioSet & <friends> $x$",
        skill={
            ("MMT", "zero-shot", "audio"): 0.0,
            ("MMT", "zero-shot", "image"): 0.4,
            ("SMI", "all", "image"): None,
        },
        checks=False,
    )
    text = Page(build_report(workspace, params).read_text(encoding="utf-8")).text
    assert "anymodal on AudioSet & <friends> $x$" in html.unescape(text)
    assert "names the instrument in a sound no better than chance" in text
    assert "one seed, so no spread is known" in text
    assert "±" not in text[: text.index("Beside the paper The method")]
    assert "Clip-paired data." in text
    assert "without any label" in text
    assert "learned from the labels" not in text
    assert "It is the only pair that was tried" in text
    assert "No data checks were recorded." in text
    assert "audioset.per_class" in text
    assert "Code" not in text[: text.index("Results")]


@pytest.fixture(scope="module")
def unusual(tmp_path_factory, write_to):
    """Text of a page on: another pair than the selected, a failed check, no account."""
    workspace = write_to(tmp_path_factory.mktemp("unusual"), seeds=2)
    other, selected = "musicnn_msd+efficientnet_lite2", read_json(workspace.selection)["pair"]
    results = workspace.classification / "results.json"
    write_json(results, {**read_json(results), "pair": other})
    training = read_json(workspace.training(selected))
    write_json(workspace.training(other), {**training, "pair": other})
    write_json(
        workspace.checks / "checks.json",
        {
            "results": [
                {"name": "schema", "success": True, "severity": "error"},
                {"name": "skew", "success": False, "severity": "warning", "message": "60 to 1"},
            ]
        },
    )
    skipped = [{"path": "a", "reason": "b"}]
    facts = {**read_json(workspace.dataset), "left_out": {}, "skipped": skipped, "account": []}
    write_json(workspace.dataset, facts)
    return Page(build_report(workspace, Params()).read_text(encoding="utf-8")).text


def test_another_pair_than_the_selected_is_told(unusual):
    assert "Classified with is another pair" in unusual
    assert "Validation loss of musicnn_msd + efficientnet_lite2" in unusual


def test_failed_checks_and_skipped_files_are_told(unusual):
    assert "1 of 2 data checks passed. The other: skew (warning): 60 to 1" in unusual
    assert "1 media file could not be read and was skipped." in unusual
    assert "No class was left out." in unusual


def test_an_account_without_counts_leaves_the_table_out(unusual):
    assert "Rows by instrument" not in unusual
