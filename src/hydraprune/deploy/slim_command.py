"""`hydraprune slim`: a saved model without its zero heads and channels, in a folder of its own. Light to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydraprune.errors import UserError
from hydraprune.utils.atomic import atomic_write
from hydraprune.utils.files import check_place
from hydraprune.utils.hub_access import at_home, go_offline_if_unreachable, is_local, model_of_run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hydraprune.deploy.slim_check import Difference, Outputs
    from hydraprune.deploy.slim_model import Slimmed
    from hydraprune.models.pretrained import PretrainedModel

_BYTES = 4  # of a number: weights are saved in single precision


def add_slim(commands: Any) -> None:
    """Add the command to those of `hydraprune`."""
    parser = commands.add_parser("slim", help="remove heads and channels that are zero: a smaller, faster model")
    parser.add_argument("model", metavar="MODEL", help="a folder, that of a run too, or a hub id")
    parser.add_argument("--out", metavar="FOLDER", help="where it is written (default: beside MODEL, with -slim added)")
    parser.set_defaults(call=lambda arguments: slim(arguments.model, arguments.out))


def slim(path: str, out: str | None = None) -> int:
    """Write the slimmed model and print what was removed.

    Args:
        path: folder, that of a run too, or hub id.
        out: a folder that does not exist or is empty; None: beside the model, with -slim added to its name.

    Returns:
        The exit code.

    Raises:
        UserError: the model cannot be loaded, nothing can be removed, the outputs would differ, or the folder is taken.
    """
    source = str(model_of_run(at_home(path)) or path)
    target, option = _target(source, out)
    _refuse_taken(target, option)
    go_offline_if_unreachable([source])
    from hydraprune.deploy.slim_check import outputs_of, sample_batch
    from hydraprune.deploy.slim_model import slim_model
    from hydraprune.models.pretrained import PretrainedModel
    from hydraprune.utils.hub_access import quiet_libraries

    quiet_libraries()
    pretrained = PretrainedModel(Path(source).name, source, key="MODEL")
    model = pretrained.load()
    tokenizer, batch = _tokenizer(pretrained), sample_batch(model)
    original, parameters = outputs_of(model, batch), _parameters(model)
    try:
        slimmed = slim_model(model)
    except UserError as error:
        raise UserError(error.reason, key="MODEL", value=path, cure=error.cure) from None
    found = _write(model, tokenizer, target, option, batch, original)
    print(_table(slimmed))
    print(_summary(slimmed, found, (parameters, _parameters(model))))
    if (stored := _stored_type(pretrained)) != "float32":
        print(f"written in single precision, and stored in MODEL as {stored}")
    if tokenizer is None:
        print("without a tokenizer, since none can be loaded from MODEL")
    print(f"{target}  is written; {_use(slimmed, target)}")
    return 0


def _target(source: str, out: str | None) -> tuple[Path, str]:
    """The folder to write, and the option that named it."""
    if out is not None:
        return at_home(out), f"--out {out}"
    folder = at_home(source).resolve() if is_local(source) else Path(source.rpartition("/")[2])
    target = folder.with_name(f"{folder.name}-slim")
    return target, f"--out {target}"


def _refuse_taken(target: Path, option: str) -> None:
    """Refuse a folder in which a user has something, or a place where none can be made."""
    try:
        taken = target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir())))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", key=option) from None
    if taken or not target.name:
        raise UserError("exists already", key=option, cure="give --out a folder that does not exist, or is empty")
    check_place(target.parent, option)


def _tokenizer(pretrained: PretrainedModel) -> Any | None:
    """The tokenizer of a model; None where it has none that can be loaded."""
    try:
        tokenizer = pretrained.tokenizer()
    except UserError:
        return None
    # Where there are no files, transformers makes one that knows its special tokens and no other.
    return tokenizer if len(tokenizer) > len(set(tokenizer.all_special_tokens)) else None


def _stored_type(pretrained: PretrainedModel) -> str:
    """The type of a model's weights by its config, such as bfloat16."""
    return str(getattr(pretrained.config(), "dtype", None) or "float32").removeprefix("torch.")


def _write(
    model: nn.Module, tokenizer: Any | None, target: Path, option: str, batch: dict[str, Tensor], original: Outputs
) -> Difference:
    """Write a slimmed model, and keep it if what is loaded from the folder gives the outputs of the original.

    Raises:
        UserError: it does not, or the folder cannot be written.
    """
    from hydraprune.deploy.slim_check import difference, outputs_of
    from hydraprune.deploy.slim_model import load_slim
    from hydraprune.models.saving import write_model

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            write_model(model, tokenizer, temporary)
            found = difference(outputs_of(load_slim(temporary), batch), original)
            if not found.is_rounding:
                raise UserError(
                    f"the slimmed model does not give its outputs (they differ by {_numbers(found)}), so nothing is "
                    f"written",
                    key="MODEL",
                    cure="report this as an error of hydraprune",
                )
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror or error})", key=option) from None
    return found


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _table(slimmed: Slimmed) -> str:
    """Heads and channels of each layer, before and after."""
    name = max(len("layer"), *(len(layer.name) for layer in slimmed.layers))
    lines = [f"{'layer':<{name}}  {'heads':>10}  {'channels':>14}"]
    for layer in slimmed.layers:
        heads, channels = (f"{before} -> {after}" for before, after in (layer.heads, layer.channels))
        padding = f"  and {layer.padding} of zeros" if layer.padding else ""
        lines.append(f"{layer.name:<{name}}  {heads:>10}  {channels:>14}{padding}")
    return "\n".join(lines)


def _summary(slimmed: Slimmed, found: Difference, parameters: tuple[int, int]) -> str:
    """Parameters, size, padding, and the difference that was measured."""
    before, after = parameters
    sizes = " -> ".join(f"{count * _BYTES / 1e6:.1f}" for count in parameters)
    lines = [
        "",
        f"parameters: {before:,} -> {after:,} ({1 - after / before:.1%} removed), {sizes} MB in single precision",
        f"largest difference of outputs: {_numbers(found)}",
    ]
    if slimmed.padding:
        kept = sum(layer.channels[1] for layer in slimmed.layers)
        lines.append(f"padding: {slimmed.padding} channels of zeros beside {kept} others")
    return "\n".join(lines)


def _numbers(found: Difference) -> str:
    return f"{found.hidden:.1e} of the norm of the last hidden state, {found.logits:.1e} of a logit"


def _use(slimmed: Slimmed, target: Path) -> str:
    """How the result is loaded."""
    if slimmed.plain:
        return "transformers loads it as it is"
    return (
        f"its layers differ in size, which transformers refuses: load it with "
        f"hydraprune.deploy.load_slim({str(target)!r}), or any command of hydraprune"
    )
