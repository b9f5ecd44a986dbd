import pytest
import yaml

from anymodal.config.params import Params, load_params
from anymodal.core.errors import AnymodalError
from helpers.paths import ROOT


def write(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_the_projects_params_file_states_every_parameter_and_agrees_with_the_defaults():
    told = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert load_params(ROOT / "params.yaml").model_dump(mode="json") == told
    assert Params().model_dump(mode="json") == told


def test_the_papers_numbers_are_the_defaults():
    params = Params()
    assert (params.translate.hidden, params.translate.dim, params.translate.margin) == (256, 128, 1)
    assert params.translate.learning_rate == 0.001
    assert (params.classify.trees, params.classify.max_depth) == (100, 32)
    assert params.retrieve.top_k == 30


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert load_params(write(tmp_path, "")) == Params()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("translate: {margni: 1}", r"translate\.margni"),
        ("translate: {margin: wide}", r"translate\.margin"),
        ("translate: {margin: -1}", r"translate\.margin"),
        ("dataset: {source: cloud}", r"dataset\.source"),
        ("dataset: {per_class: 2}", r"dataset\.per_class"),
        ("dataset: {translation: 0.8, retrieval: 0.3}", "nothing to classification"),
        ("dataset: {classification_valid: 0.6}", "nothing to train"),
        ("seed: -1", "seed"),
        ("across: {folds: 2}", "across: is now cross_source"),
        ("classify: {keep: 0.9}", r"is now classify\.ood_keep_rate"),
        ("classify: {seeds: 9}", "each forest needs its own translation"),
        ("[1, 2]", "named sections"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, reason):
    with pytest.raises(AnymodalError, match=reason) as caught:
        load_params(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(AnymodalError, match="run inside an anymodal project"):
        load_params(tmp_path / "params.yaml")


def test_params_are_frozen_and_documented():
    params = Params()
    with pytest.raises(ValueError, match="frozen"):
        params.translate.margin = 2
    for section in Params.model_fields.values():
        fields = getattr(section.annotation, "model_fields", {})
        assert all(field.description for field in fields.values())


def test_pairs_are_every_audio_with_every_image_encoder():
    embed = Params().embed
    assert len(embed.pairs) == len(embed.audio) * len(embed.image)
    assert embed.encoders == embed.audio + embed.image
