from anymodal.evaluation import captions


def test_lists():
    assert captions.listed([]) == ""
    assert captions.listed(["a"]) == "a"
    assert captions.listed(["a", "b", "c"]) == "a, b and c"
    assert captions.counts({"audio": 1200, "image": 3}) == "1,200 audio clips and 3 images"


def test_numbers_and_what_stands_for_missing_ones():
    assert captions.number(0.12345) == "0.123" and captions.number(0.5, "+.1f") == "+0.5"
    assert captions.number(None) == captions.number(float("nan"), "+.1f") == "–"
    assert captions.percent(0.845, 1) == "84.5\N{NO-BREAK SPACE}%"
    assert captions.percent(None) == "–"
    assert captions.interval(-0.1, 0.25, "+.2f") == "-0.10 to +0.25"
    assert captions.interval(None, 0.1) == captions.interval(0.1, None) == ""
    assert captions.mean_std(0.5, 0.0, 3) == "0.500 ± 0.000"
    assert captions.mean_std(0.5, 0.0, 1) == "0.500"
