import os

# before torch is imported: see anymodal.cli.main
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# before keras is: TensorFlow imports it, and then it would run on TensorFlow in every later test
os.environ.setdefault("KERAS_BACKEND", "torch")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # processes share the cores; more threads than cores slow each other down
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
from filelock import FileLock

from helpers.paths import ROOT, TESTS
from helpers.project import Project


def pytest_collection_modifyitems(items):
    users = [item for item in items if "finished" in item.fixturenames]
    for item in users:
        item.add_marker(pytest.mark.slow)
    # the first of their files makes the project, the others wait for it: they come last
    files = list(dict.fromkeys(item.path for item in users))
    order = dict.fromkeys(files[:1], -1) | dict.fromkeys(files[1:], 1)
    # a minute and more each: begun last, they would keep one process busy alone
    order |= {TESTS / "repository" / "test_docs_commands.py": -2}
    order |= {TESTS / "pipeline" / "test_audioset.py": -2}
    items.sort(key=lambda item: order.get(item.path, 0))


@pytest.fixture(scope="session", autouse=True)
def _outside_the_checkout(tmp_path_factory):
    """What a test writes by a relative path, such as MLflow's `mlruns`, is not in the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture(scope="session")
def bundled():
    """Skips where the bundled pack's DVC store is not in the checkout."""
    if not (ROOT / "data.dvc").is_file() or not (ROOT / ".dvc" / "store").is_dir():
        pytest.skip("the bundled pack is not in this checkout")


@pytest.fixture(scope="session")
def finished(bundled, tmp_path_factory):
    """A project of one pair and two seeds after the whole pipeline: all test processes share it,
    so read it only, or use `duplicate`."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with FileLock(folder / "finished.lock"):
        project = Project(folder / "finished" / "project")
        if not (folder / "finished" / "done").exists():
            project = Project.copy(
                project.folder,
                embed__audio=["musicnn_mtt"],
                embed__image=["efficientnet_lite0"],
                translate__seeds=2,
                translate__max_epochs=15,
                classify__seeds=2,
                classify__trees=40,
                classify__bootstrap=200,
                cross_source__folds=2,
                cross_source__seeds=1,
                mixing__points=[0, 20],
                mixing__draws=2,
                mixing__workers=1,
            )
            project.run_pipeline()
            (folder / "finished" / "done").touch()
    return project


@pytest.fixture(scope="session")
def pack_folder(bundled, tmp_path_factory):
    """The bundled pack: the one in the checkout, or one pulled for the tests."""
    if (ROOT / "data" / "pack.json").is_file():
        return ROOT / "data"
    project = Project.copy(tmp_path_factory.mktemp("pulled") / "project")
    project.run("dvc", "pull", "--quiet", "data.dvc")
    return project.folder / "data"
