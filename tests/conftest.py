import os

# before torch is imported: see anymodal.cli.main
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
    )
    project.run("anymodal", "run")
    return project
