"""Search spaces hold the values in use, and give parameters that can be trained with."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from anymodal.config.params import ClassifyParams, Params, TranslateParams
from anymodal.config.tuning import ForestSpace, Range, TranslationSpace
from anymodal.core.errors import AnymodalError
from anymodal.tuning.search_space import (
    distributions,
    in_use,
    settings,
    suggest,
)

NONE = dict.fromkeys(TranslationSpace.model_fields)


def space(**given):
    return TranslationSpace(**{**NONE, **given})


def test_kinds_of_dimensions():
    found = distributions(
        space(
            hidden=Range(low=8, high=32, log=True), dropout=Range(low=0, high=0.5), loss=("hinge",)
        ),
        TranslateParams(hidden=16),
    )
    assert found == {
        "hidden": IntDistribution(8, 32, log=True),
        "dropout": FloatDistribution(0, 0.5),
        "loss": CategoricalDistribution(("hinge",)),
    }


def test_a_space_is_widened_to_hold_the_values_in_use():
    now = TranslateParams(hidden=4, dropout=0.8, batch_size=99)
    found = distributions(
        space(hidden=Range(low=8, high=32), dropout=Range(low=0.1, high=0.5), batch_size=(32, 64)),
        now,
    )
    assert found["hidden"] == IntDistribution(4, 32)
    assert found["dropout"] == FloatDistribution(0.1, 0.8)
    assert found["batch_size"].choices == (32, 64, 99)
    assert in_use(found, now, lambda name, chosen: True) == {
        "hidden": 4, "dropout": 0.8, "batch_size": 99
    }  # fmt: skip


def test_a_range_that_cannot_hold_the_value_in_use_is_told():
    with pytest.raises(AnymodalError, match=r"logarithmic range .* weight_decay, 0\.0"):
        distributions(space(weight_decay=Range(low=1e-5, high=1, log=True)), TranslateParams())
    forest = ForestSpace(max_depth=Range(low=1, high=9))
    with pytest.raises(AnymodalError, match="max_depth, None"):
        distributions(forest, ClassifyParams(max_depth=None))


def trial_of(found, relevant, values):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(values)
    return suggest(study.ask(), found, relevant)


def test_parameters_that_do_not_matter_are_not_suggested():
    found = distributions(space(loss=("hinge", "infonce"), margin=(0.5, 1.0)), TranslateParams())

    def relevant(name, chosen):
        return name != "margin" or chosen["loss"] == "hinge"

    assert trial_of(found, relevant, {"loss": "infonce"}) == {"loss": "infonce"}
    assert trial_of(found, relevant, {"loss": "hinge", "margin": 0.5})["margin"] == 0.5


def test_numbers_are_rounded_and_the_values_in_use_are_not():
    now = TranslateParams(learning_rate=0.00123456789)
    chosen = settings({"learning_rate": 0.00123456789, "dropout": 0.123456789}, now)
    assert chosen.learning_rate == 0.00123456789
    assert chosen.dropout == 0.1235
    assert settings({}, now) == now
    assert isinstance(settings({"hidden": 64}, now).hidden, int)


def test_every_default_dimension_is_searchable():
    params = Params()
    for searched, now in (
        (params.tune.translation, params.translate),
        (params.tune.forest, params.classify),
    ):
        found = distributions(searched, now)
        assert set(found) == set(type(searched).model_fields)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        for _ in range(30):
            settings(suggest(study.ask(), found, lambda name, chosen: True), now)


@pytest.mark.parametrize(
    ("tune", "reason"),
    [
        ({"translation": {"hidden": {"low": 8, "high": 4}}}, "low"),
        ({"translation": {"hidden": {"low": 0, "high": 4, "log": True}}}, "logarithmic"),
        ({"translation": {"hidden": [0, 4]}}, "hidden at 0"),
        ({"translation": {"loss": ["hinge", "triplet"]}}, "loss at 'triplet'"),
        ({"translation": {"activation": {"low": 0, "high": 1}}}, "activation at 0"),
        ({"translation": {"hidden": []}}, "hidden"),
        ({"translation": {"hiden": [4]}}, "hiden"),
        ({"forest": {"max_features": [0.5, 1.5]}}, "max_features at 1.5"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_impossible_spaces_are_named(tune, reason):
    with pytest.raises(ValueError, match=reason):
        Params.model_validate({"tune": tune})
