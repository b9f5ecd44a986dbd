import os

# before torch is imported: see anymodal.cli.main
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# before keras is: TensorFlow imports it, and then it would run on TensorFlow in every later test
os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

from project import ROOT, Project


@pytest.fixture(scope="session")
def bundled():
    """Skips where the bundled pack's DVC store is not in the checkout."""
    if not (ROOT / "data.dvc").is_file() or not (ROOT / ".dvc" / "store").is_dir():
        pytest.skip("the bundled pack is not in this checkout")


@pytest.fixture(scope="session")
def finished(bundled, tmp_path_factory):
    """A project of one pair and two seeds after `anymodal run`: shared, so read it only."""
    project = Project.copy(
        tmp_path_factory.mktemp("finished") / "project",
        embed__audio=["musicnn_mtt"],
        embed__image=["efficientnet_lite0"],
        translate__seeds=2,
        classify__seeds=2,
        across__folds=2,
        across__seeds=1,
        mixing__points=[0, 20],
        mixing__draws=4,
    )
    project.run("anymodal", "run")
    return project


@pytest.fixture(scope="session")
def pack_folder(bundled, tmp_path_factory):
    """The bundled pack: the one in the checkout, or one pulled for the tests."""
    if (ROOT / "data" / "pack.json").is_file():
        return ROOT / "data"
    project = Project.copy(tmp_path_factory.mktemp("pulled") / "project")
    project.run("dvc", "pull", "--quiet", "data.dvc")
    return project.folder / "data"
