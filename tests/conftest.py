import os
import re
from functools import cache

# before torch is imported: see anymodal.cli.main
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# before keras is: TensorFlow imports it, and then it would run on TensorFlow in every later test
os.environ.setdefault("KERAS_BACKEND", "torch")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # processes share the cores; threads beyond them bring each other to a crawl
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest

from project import ROOT, Project


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One process for all files that share the finished project, and one for each other file: what
    tests share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "finished" if _shares(nodeid.partition("::")[0]) else nodeid.partition("::")[0]

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """What shares the finished project, the longest, comes first."""
    items.sort(key=lambda item: not _shares(item.nodeid.partition("::")[0]))


@cache
def _shares(file):
    return (
        re.search(r"def \w+\([^)]*\bfinished\b", (ROOT / file).read_text(encoding="utf-8"))
        is not None
    )


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
        classify__bootstrap=500,
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
