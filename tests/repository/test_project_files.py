"""The files at the top level agree with one another and with the package."""

import re
import subprocess
import tomllib

import pytest
import typer
import yaml

from anymodal.cli.main import app
from anymodal.pipeline.runner import STAGES
from helpers.project import ROOT


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def commands():
    return set(typer.main.get_command(app).commands)


def test_a_stage_a_command_and_an_entry_point_share_a_name():
    assert tuple(load("dvc.yaml")["stages"]) == STAGES
    assert set(load("MLproject")["entry_points"]) == {"main", "tune", *STAGES}
    assert set(STAGES) <= commands()


def test_every_stage_runs_the_command_of_its_name():
    for name, stage in load("dvc.yaml")["stages"].items():
        assert stage["cmd"].startswith(f"python -m anymodal {name}")
        assert stage["desc"]


def test_stages_list_only_parameters_that_exist():
    params = load("params.yaml")
    for stage in load("dvc.yaml")["stages"].values():
        for name in stage.get("params", []):
            if isinstance(name, dict):
                continue
            node = params
            for part in name.split("."):
                assert part in node, name
                node = node[part]


def test_embeddings_do_not_depend_on_how_fast_they_are_made():
    stages = load("dvc.yaml")["stages"]
    assert not {"embed", "embed.batch_size", "embed.workers"} & set(stages["embed"]["params"])


def test_conda_environment_names_all_that_users_asked_for():
    (pip,) = [d["pip"] for d in load("conda.yaml")["dependencies"] if isinstance(d, dict)]
    named = {re.split(r"[><=\[]", line)[0] for line in pip}
    wanted = {
        "mlflow", "dvc", "torch", "tensorflow-hub", "openl3", "scikit-learn", "optuna", "pandas",
        "great-expectations",
    }  # fmt: skip
    assert wanted <= named


def test_mlflow_environment_pins_no_python():
    # with a version MLflow asks pyenv to install just that one
    assert "python" not in load("python_env.yaml")
    assert any(str(line).startswith("torch==") for line in load("python_env.yaml")["dependencies"])


def test_extras_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"tf", "openl3", "ray", "app", "audioset", "dev"} <= set(
        project["optional-dependencies"]
    )


def test_the_bundled_pack_is_small(bundled):
    size = sum(path.stat().st_size for path in (ROOT / ".dvc/store").rglob("*") if path.is_file())
    assert size < 40e6


def test_readme_names_commands_and_targets_that_exist():
    text = (ROOT / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL))
    for name in re.findall(r"^anymodal (\w+)", blocks, flags=re.MULTILINE):
        assert name in commands(), name
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for name in re.findall(r"^make (\w+)", blocks, flags=re.MULTILINE):
        assert name in targets, name
    assert {"make demo", "make test"} <= set(re.findall(r"^make \w+", blocks, flags=re.MULTILINE))


@pytest.mark.parametrize("target", ["demo", "test", "lint", "ui", "clean"])
def test_make_targets_parse(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
