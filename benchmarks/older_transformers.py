"""Load saved models in an earlier transformers: `python benchmarks/older_transformers.py --versions 4.46.3 4.52.4`.

Random models of families with rotary positions, whose base is not the default, are saved as hydraprune saves them, and
loaded by that version in an environment of its own (made by pip; about two minutes a version). Printed are the largest
difference of the logits, and the largest logit; `-` where that version does not know the family.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from hydraprune.models.saving import write_model

FAMILIES = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt_neox"),
    *("stablelm", "olmo", "olmo2", "starcoder2", "cohere", "modernbert", "persimmon", "nemotron", "glm"),
)
# Fields that some families have not, or need.
NO_GROUPS = ("gpt_neox", "modernbert", "phi", "persimmon")
HEAD_SIZE = ("qwen3", "gemma", "gemma2", "gemma3_text", "glm")
BASE, LOCAL_BASE = 300_000.0, 20_000.0
TOKENS = 40

# Runs in the earlier version, which has no hydraprune.
LOAD = """
import json, pathlib, sys, torch, transformers
transformers.logging.set_verbosity_error()
found = {}
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    kind = "AutoModelForMaskedLM" if folder.name == "modernbert" else "AutoModelForCausalLM"
    try:
        model = getattr(transformers, kind).from_pretrained(folder).eval()
    except ValueError as error:
        assert "does not recognize this architecture" in str(error), error
        continue
    with torch.no_grad():
        logits = model((torch.arange(40) + 1)[None]).logits
    expected = torch.load(folder / "logits.pt")
    found[folder.name] = [float((logits - expected).abs().max()), float(expected.abs().max())]
print(json.dumps(found))
"""


def save(family: str, folder: Path) -> None:
    """Save a random model with other bases than the default, and its logits."""
    fields: dict[str, Any] = {
        "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    fields |= {} if family in NO_GROUPS else {"num_key_value_heads": 2}
    fields |= {"head_dim": 8} if family in HEAD_SIZE else {}
    torch.manual_seed(0)
    config: Any = AutoConfig.for_model(family, **fields)
    rope = config.rope_parameters
    rope.get("full_attention", rope)["rope_theta"] = BASE
    if "sliding_attention" in rope:
        rope["sliding_attention"]["rope_theta"] = LOCAL_BASE
    head: Any = AutoModelForMaskedLM if family == "modernbert" else AutoModelForCausalLM
    model = head.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    folder.mkdir()
    write_model(model, None, folder)
    with torch.no_grad():
        torch.save(model((torch.arange(TOKENS) + 1)[None]).logits, folder / "logits.pt")


def load(version: str, models: Path, place: Path) -> dict[str, list[float]]:
    """Family -> (largest difference, largest logit) in a version of transformers."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    wanted = [f"torch=={torch.__version__.partition('+')[0]}", f"transformers=={version}", "numpy<2.5"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    done = subprocess.run([str(python), "-c", LOAD, str(models)], check=True, capture_output=True, text=True, cwd=place)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", default=["4.46.3", "4.52.4"])
    versions = parser.parse_args().versions
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        for family in FAMILIES:
            save(family, models / family)
        found = {version: load(version, models, Path(folder) / version) for version in versions}
    print(f"| family | {' | '.join(versions)} |\n|---|{'---|' * len(versions)}")
    for family in FAMILIES:
        cells = [found[version].get(family) for version in versions]
        print(f"| {family} | {' | '.join('-' if c is None else f'{c[0]:.1e} of {c[1]:.1f}' for c in cells)} |")


if __name__ == "__main__":
    main()
