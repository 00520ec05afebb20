"""Exports to ONNX and OpenVINO: the outputs of every family, what lies in the folder, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from compact_helpers import save_sparse
from model_helpers import save_tiny
from slim_helpers import save, slimmable

from hydraprune.deploy import ExportOptions, export_model, load_onnx, load_openvino
from hydraprune.deploy.comparison import Comparison, compare, refuse_above_limit
from hydraprune.deploy.export_options import PRECISIONS
from hydraprune.deploy.slim_model import slim_model
from hydraprune.deploy.text_batches import input_batches, sample_texts, spread
from hydraprune.errors import UserError

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "deployment.md", ROOT / "README.md")
COMMANDS = sorted({c.strip() for d in DOCS for c in re.findall(r"hydraprune export [^\n`#|]+", d.read_text("utf-8"))})
# Overrides that make the toy task small.
SMALL_TASK = ("task.train_examples=40", "task.evaluation_examples=24")
# Tracing takes seconds for each model and engine: the commands of the documentation are run with a DistilBERT on both,
# and each other family on one, two of them with layers of different sizes.
FAMILIES = (
    ("electra", "onnx", False),
    ("mpnet", "onnx", True),
    ("bert", "openvino", True),
    ("roberta", "openvino", False),
)


def torch_and_arrays(model: torch.nn.Module, names: list[str], batch: int, length: int) -> tuple[Any, dict[str, Any]]:
    """Logits of torch for random tokens with padding, and the same inputs for an engine."""
    ids = torch.randint(5, 60, (batch, length), generator=torch.Generator().manual_seed(batch))
    mask = torch.ones_like(ids)
    mask[-1, max(1, length - 3) :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    inputs = {name: inputs[name] for name in names}
    with torch.no_grad():
        return model(**inputs).logits, {name: tensor.numpy() for name, tensor in inputs.items()}


@pytest.mark.parametrize(("kind", "engine", "slimmed"), FAMILIES)
def test_a_family_computes_what_torch_computes(kind: str, engine: str, slimmed: bool, tmp_path: Path) -> None:
    if slimmed:
        model = slimmable(kind).eval()
        slim_model(model)
        save(model, tmp_path / "model")
    else:
        model = save_sparse(tmp_path / "model", kind, num_hidden_layers=1)
    exported = export_model(str(tmp_path / "model"), ExportOptions(engine))
    assert exported.folder == tmp_path / f"model-{engine}"
    details = json.loads((exported.folder / "export.json").read_text())
    assert details["check"]["error"] < 1e-5
    assert details["check"]["batches"] > 2
    if engine == "onnx":
        session = load_onnx(exported.folder, threads=1)
        run = lambda arrays: session.run(None, arrays)[0]  # noqa: E731
        assert [axis.shape for axis in session.get_inputs()] == [["batch", "length"]] * len(details["inputs"])
    else:
        compiled = load_openvino(exported.folder, threads=1)
        run = lambda arrays: compiled(arrays)["logits"]  # noqa: E731
    for batch, length in ((1, 1), (1, 33), (5, 12)):
        expected, arrays = torch_and_arrays(model, details["inputs"], batch, length)
        assert (torch.from_numpy(run(arrays)) - expected).norm() / expected.norm() < 1e-5


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sparse DistilBERT of one layer and its tokenizer."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_sparse(folder, "distilbert", n_layers=1)
    return folder


@pytest.fixture(scope="module")
def converted_once(saved: Path) -> Iterator[None]:
    """Convert the saved model once for each engine: the commands differ in what they do with the result."""
    from hydraprune.deploy import exports

    kept: dict[str, Any] = {}
    write, convert = exports.write_onnx, exports.to_openvino

    def write_onnx(model: Any, names: Any, file: Path) -> None:
        if "onnx" not in kept:
            write(model, names, file)
            kept["onnx"] = file.read_bytes()
        file.write_bytes(kept["onnx"])

    def to_openvino(model: Any, names: Any) -> Any:
        if "openvino" not in kept:
            kept["openvino"] = convert(model, names)
        return kept["openvino"].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "write_onnx", write_onnx)
        patch.setattr(exports, "to_openvino", to_openvino)
        yield


@pytest.mark.usefixtures("converted_once")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_documentation_runs(command: str, saved: Path, hydraprune: Callable[..., Any]) -> None:
    words = shlex.split(command.replace("MODEL", str(saved)))[1:]
    form = "-".join(words[words.index(flag) + 1] for flag in ("--to", "--precision") if flag in words)
    done = hydraprune(*words, *(SMALL_TASK if "task=toy" in words else ()), "--out", "made")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith(str(Path("made").absolute()))
    assert "relative error of the logits" in done.out
    files = {file.name for file in Path("made").iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "export.json"} < files
    details = json.loads(Path("made/export.json").read_text())
    assert {"relative error": details["check"]["error"] < 1e-5} == {"relative error": form in PRECISIONS}
    for file in Path("made").iterdir():
        content = file.read_bytes()
        assert not any(place in content for place in (b"site-packages", os.fsencode(ROOT), os.fsencode(Path.cwd())))
    if form == "openvino-int8":
        assert "calibrated on 40 texts" in done.out
        assert Path("made/model.bin").stat().st_size > 0
    if form.startswith("openvino"):
        compiled = load_openvino("made", 1)
        assert [port.any_name for port in compiled.inputs] == details["inputs"]
        if form == "openvino":
            assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    if form == "onnx-int8":
        import onnx

        operations = {node.op_type for node in onnx.load("made/model.onnx").graph.node}
        assert "MatMulInteger" in operations


def test_there_are_commands_for_every_precision() -> None:
    assert len(COMMANDS) >= 7
    for form, precisions in PRECISIONS.items():
        for precision in precisions[1:]:
            shown = any(f"--to {form} --precision {precision}" in command for command in COMMANDS)
            assert shown or (form, precision) == ("compact", "fp16")


BAD_OPTIONS = {
    "--to tflite": "invalid choice: 'tflite'",
    "": "the following arguments are required: --to",
    "--to onnx --precision bf16": "--precision bf16: --to onnx has fp32, int8",
    "--to compact --precision int8": "--to compact has fp32, fp16, bf16",
    "--to onnx --embeddings fp16": "--embeddings fp16: is for --to compact",
    "--to compact --embeddings int8": "--embeddings int8: is for --to compact",
    "--to openvino --precision int8": "none is given; for example task=sst2",
    "--to onnx task.max_length=12": "a task is needed",
    "--to compact --out taken": "taken: exists and is not empty; give another folder",
    "--to compact --out taken/file": "taken/file: is a file",
    "--to compact --out taken/file/below": "cannot be written",
    "--to compact --out": "expected one argument",
    "--to onnx task=toy task.max_length=5000": "has 512 positions",
}


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize("typed", BAD_OPTIONS)
def test_options_that_do_not_fit_are_answered_in_one_line(
    typed: str, saved: Path, hydraprune: Callable[..., Any], workplace: Path
) -> None:
    (workplace / "taken").mkdir()
    (workplace / "taken" / "file").write_text("mine")
    done = hydraprune("export", str(saved), *typed.split())
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert BAD_OPTIONS[typed] in done.err
    assert [file.name for file in workplace.rglob("*")] == ["taken", "file"]
    assert [folder.name for folder in saved.parent.iterdir()] == ["model"]


@pytest.mark.usefixtures("bad_input")
def test_a_model_that_cannot_be_exported_leaves_nothing(
    saved: Path, hydraprune: Callable[..., Any], workplace: Path
) -> None:
    save_tiny(Path("small"))
    config = json.loads(Path("small/config.json").read_text())
    Path("small/config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    for model, words in (("nowhere/at-all", "MODEL=nowhere/at-all"), ("./gone", "no such file"), ("small", "lacks")):
        done = hydraprune("export", model, "--to", "compact")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert words in done.err
    assert [folder.name for folder in workplace.iterdir()] == ["small"]


@pytest.mark.usefixtures("bad_input")
@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnxruntime"), ("onnx", "onnxscript"), ("openvino", "nncf")])
def test_a_missing_package_is_one_line_with_the_command(
    engine: str, package: str, saved: Path, hydraprune: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydraprune.deploy import engines

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == package else object())
    done = hydraprune("export", str(saved), "--to", engine)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert f"the package {package} is not installed; pip install 'hydraprune[{engine}]'" in done.err


def test_openvino_sends_nothing() -> None:
    program = (
        "from hydraprune.deploy.engines import require; require('openvino')\n"
        "import openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub", done.stderr


def test_a_compact_folder_can_be_exported_again(saved: Path, tmp_path: Path) -> None:
    first = export_model(str(saved), ExportOptions("compact", out=str(tmp_path / "a")))
    second = export_model(str(first.folder), ExportOptions("compact", out=str(tmp_path / "b")))
    assert (first.folder / "compact.safetensors").read_bytes() == (second.folder / "compact.safetensors").read_bytes()


def test_verify_reads_a_compact_folder(saved: Path, hydraprune: Callable[..., Any], tmp_path: Path) -> None:
    export_model(str(saved), ExportOptions("compact", out=str(tmp_path / "a")))
    assert hydraprune("verify", str(tmp_path / "a"), "--pattern", "4x1").code == 0
    assert hydraprune("verify", str(tmp_path / "a")).out == hydraprune("verify", str(saved)).out


@pytest.mark.usefixtures("bad_input")
def test_int8_of_openvino_asks_for_texts_of_a_task(saved: Path) -> None:
    with pytest.raises(UserError, match="calibrated on the texts of a task"):
        export_model(str(saved), ExportOptions("openvino", "int8"))


def test_a_dense_model_is_said_to_gain_nothing(tmp_path: Path) -> None:
    save_tiny(tmp_path / "dense")
    exported = export_model(str(tmp_path / "dense"), ExportOptions("compact"))
    assert "a dense model is better served by" in exported.summary["note"]


def test_other_files_of_a_model_are_kept_and_its_weights_are_not(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("card")
    (tmp_path / "model" / "training_args.bin").write_bytes(b"pickle")
    (tmp_path / "model" / ".cache").mkdir()
    exported = export_model(str(tmp_path / "model"), ExportOptions("compact"))
    assert {file.name for file in exported.folder.iterdir()} == {
        "README.md",
        "compact.safetensors",
        "config.json",
        "export.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.usefixtures("bad_input")
def test_folders_without_an_export_are_refused_when_they_are_loaded(tmp_path: Path) -> None:
    for load, file in ((load_onnx, "model.onnx"), (load_openvino, "model.xml")):
        with pytest.raises(UserError, match="no such file"):
            load(tmp_path)
        (tmp_path / file).write_text("no model")
        with pytest.raises(UserError, match="cannot be"):
            load(tmp_path)
    for options in ("", "[]", "[" * 100_000):
        (tmp_path / "openvino_options.json").write_text(options)
        with pytest.raises(UserError, match=r"openvino_options\.json"):
            load_openvino(tmp_path)


def test_an_export_that_computes_something_else_is_refused(saved: Path) -> None:
    from hydraprune.models.pretrained import PretrainedModel

    source = PretrainedModel("model", str(saved))
    model = source.load().eval()
    batches = input_batches(sample_texts(), source.tokenizer(), model, 8)

    def run(shift: float) -> Callable[[dict[str, Any]], Any]:
        def logits(arrays: dict[str, Any]) -> Any:
            with torch.no_grad():
                found = model(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits
            return (found * (1 + shift)).numpy()

        return logits

    assert compare(model, run(0), batches).error == 0
    slightly = compare(model, run(1e-3), batches)
    assert slightly.error == pytest.approx(1e-3, rel=0.01)
    with pytest.raises(UserError, match="computes other outputs than torch"):
        refuse_above_limit(slightly, "onnx")
    with pytest.raises(UserError, match="wrong outputs"):
        compare(model, run(float("nan")), batches)
    refuse_above_limit(Comparison(1e-6, 1, 1, 1, 1), "onnx")


def test_the_sample_has_texts_of_all_lengths_and_spread_takes_evenly() -> None:
    words = [len(text.split()) for (text,) in sample_texts()]
    assert min(words) == 1
    assert max(words) == 200
    assert len(set(words)) == len(words)
    assert spread([(str(number),) for number in range(100)], 4) == [("0",), ("25",), ("50",), ("75",)]
    assert len(spread(sample_texts(), 1000)) == len(words)
