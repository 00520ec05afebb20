"""Every command of the README runs, with small settings and local files. CI runs the installation commands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Some commands show the sweep that another has run.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
SETUP = [line for line in LINES if "pip install" in line]
COMMANDS = [line for line in LINES if "pip install" not in line]

# Overrides that make a command small, after those of the README.
SMALL = (
    "training.epochs=2",
    "training.batch_size=16",
    "task.max_train_examples=64",
    "runtime.threads=1",
)
SPARSE = (
    "scheduler.warmup=2",
    "scheduler.cooldown=2",
    "scheduler.frequency=1",
    "dense.overrides=['training.epochs=1']",
)


# Rows for which one small checkpoint is enough, and fewer jobs.
SMALLER = {
    "matrix=glob(*)": "matrix=glob(bert_mini_mrpc_*)",
    "method=glob(*)": "method=glob(2of4_*a*)",  # one that trains and one that does not
    "seed=range(5)": "seed=range(1)",
    "seed=range(3)": "seed=range(1)",
    "seed=0,1,2": "seed=0",
}
DEMO = (
    "model=tiny",
    "task=toy",
    "task.train_examples=320",
    "task.evaluation_examples=64",
    "training.epochs=2",
    *SPARSE,
)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkout's train.py and conf, a small GLUE in the hub's layout, and small checkpoints."""
    import datasets
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from hydraprune.data.examples import Labels
    from hydraprune.models.tiny import TinyModel

    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "train.py", folder)
    labels = [i % 2 for i in range(96)]
    words = [f"the film is {'good' if label else 'bad'} {i}" for i, label in enumerate(labels)]
    for name, columns in {"mrpc": ("sentence1", "sentence2"), "sst2": ("sentence",)}.items():
        rows = datasets.Dataset.from_dict({**dict.fromkeys(columns, words), "label": labels})
        for split in ("train", "validation"):
            (folder / "glue" / name).mkdir(parents=True, exist_ok=True)
            rows.to_parquet(folder / "glue" / name / f"{split}-00000-of-00001.parquet")
    parts = "".join(
        f"- config_name: {n}\n  data_files:\n" + "".join(f"  - split: {s}\n    path: {n}/{s}-*\n" for s in SPLITS)
        for n in ("mrpc", "sst2")
    )
    (folder / "glue" / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    rows = "".join(f"{word},{word},{label}\n" for word, label in zip(words, labels, strict=True))
    for file in ("train.csv", "dev.csv"):
        (folder / file).write_text("title,body,topic\n" + rows)
    tiny = TinyModel("tiny", 32, 1, 2, 32)
    distil = DistilBertConfig(vocab_size=tiny.config().vocab_size, dim=32, n_layers=1, n_heads=2, hidden_dim=32)
    for name, model in {
        "bert": tiny.load(Labels(("a", "b"))),
        "distilbert": DistilBertForSequenceClassification(distil),
    }.items():
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    return folder


SPLITS = ("train", "validation")


def made_small(command: str, place: Path) -> list[str]:
    words = shlex.split(command)
    if words[:2] == ["hydraprune", "check"]:
        return [
            sys.executable,
            "-m",
            "hydraprune.cli",
            "check",
            *made_small(shlex.join(["python", "train.py", *words[2:]]), place)[2:],
        ]
    if words[:2] == ["hydraprune", "predict"]:  # a checkpoint and the splits that are there
        words[2] = str(place / "bert")
        words = [*words[:4], f"task.path={place / 'glue'}", "--split", "validation"]
    if words[0] == "hydraprune":
        return [sys.executable, "-m", "hydraprune.cli", *words[1:]]
    words = [SMALLER.get(word, word) for word in words]
    if "demo_matrix=glob(*)" in words or "method=glob(2of4_*a*)" in words:
        return [sys.executable, *words[1:], *DEMO]
    model = "distilbert" if "model=distilbert" in words else "bert"
    words += SMALL if "pattern=dense" in words else (*SMALL, *SPARSE)
    # A path alone would be another model, without the recipe of the default one.
    words += [] if any(word.startswith(("model=", "matrix=")) for word in words) else ["model=bert_mini"]
    words.append(f"model.path={place / model}")
    if any(word in ("task=sst2", "task=mrpc") for word in words) or "-m" in words:
        words.append(f"task.path={place / 'glue'}")
    if "--cfg" in words:  # Hydra wants its flags last
        words = [word for word in words if word not in ("--cfg", "job")] + ["--cfg", "job"]
    return [sys.executable, *words[1:]]


def test_there_are_two_setup_commands() -> None:
    assert len(SETUP) == 2
    assert SETUP[0].endswith("python train.py experiment=quickstart")
    assert SETUP[1].endswith("pytest")
    assert len(COMMANDS) >= 7


# Runs in a process of its own; the others in this one, which saves the time of imports.
STARTED = "python train.py pattern=4x1 task=sst2"
Run = Callable[[str], Any]


@pytest.fixture
def run(place: Path, hydraprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command of the README with small settings, in the folder with its files."""

    def ran(command: str) -> Any:
        words = made_small(command, place)
        if command != STARTED:
            monkeypatch.chdir(place)
            return hydraprune(*words[3:]) if "-m hydraprune.cli" in " ".join(words) else hydraprune("train", *words[2:])
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=300, check=False)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    return ran


def test_the_readme_has_the_command_that_is_run_in_a_process() -> None:
    assert STARTED in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command: str, place: Path, run: Run) -> None:
    ours = ("check", "predict", "report", "watch", "dashboard")
    assert command.startswith(("python train.py ", *(f"hydraprune {name} " for name in ours)))
    if "multirun_sweeps/default" in command and not (place / "multirun_sweeps/default/plan.json").is_file():
        run("python train.py -m 'demo_matrix=glob(*)' 'seed=range(3)'")
    done = run(command)
    assert done.code == 0, done.err[-2000:]
    if "--cfg" in command:
        assert "rows: 4" in done.out
    elif "hydraprune check" in command:
        assert "from the checkpoint" in done.out or ", finished" in done.out
    elif "hydraprune predict" in command:
        assert len(re.findall(r'"prediction": "(?:negative|positive)"', done.out)) == 96
    elif "plan=true" in command:
        assert "disk   about" in done.out
    elif "watch" in command:
        assert "done" in done.out
    elif "dashboard --wandb" in command:
        assert (place / "workspace.json").stat().st_size > 1000
    elif "dashboard" in command:
        assert (place / "multirun_sweeps/default/dashboard.html").stat().st_size > 500_000
    elif " -m " in command or "report" in command:
        assert "| relative drop" in done.out
    else:
        assert "model  " in done.out


def test_the_training_loop_of_the_readme_prunes(tmp_path: Path) -> None:
    """The Python example of the README, unchanged, with a small model."""
    section = README.split("## In a training loop of your own")[1]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    program = tmp_path / "mine.py"
    program.write_text(
        "import torch\nfrom torch import nn\n"
        "torch.manual_seed(0)\n"
        "model = nn.Sequential()\nmodel.encoder = nn.Linear(16, 32)\nmodel.classifier = nn.Linear(32, 2)\n"
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)\n"
        "batches = [torch.randn(4, 16) for _ in range(2000)]\n"
        "loss = lambda model, x: model.classifier(model.encoder(x).relu()).square().mean()\n"
        + code
        + "\nw = model.encoder.weight.detach()\n"
        "empty = int((w.reshape(8, 4, 16) == 0).all(1).sum())\n"
        "assert empty == int(128 * 0.9), empty\n"
        "assert int((w == 0).sum()) == 4 * empty\n"
        "assert int((model.classifier.weight == 0).sum()) == 0\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "done", done.stderr
