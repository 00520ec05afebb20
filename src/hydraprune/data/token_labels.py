"""Tokens: the next token of running text, or hidden tokens in it; language modelling."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hydraprune.data.labels import IGNORED, Labels, Problem, Rows, soft_token_loss, token_loss
from hydraprune.sparsity.precision import wide

# The largest difference, as a share of the largest output, that is rounding.
_ROUNDING = 1e-5
# Of a text, in a trial.
_EXCERPT = 50_000
# Devlin et al. 2019, "BERT", arXiv:1810.04805: of the chosen tokens, the shares that are masked and replaced.
_MASKED, _REPLACED = 0.8, 0.1
# What holds the token that a masked place had.
_ORIGINAL = "original"


@dataclass(frozen=True)
class NextTokens(Labels):
    """The next token at each place: causal language modelling.

    A text is tokenized as a whole and cut into rows of the maximal length; what remains at its end is left out, unless
    it is all there is.
    """

    names: tuple[str, ...] = ()

    problem: ClassVar[Problem] = "causal language modelling"
    fewest: ClassVar[int] = 0
    per_token: ClassVar[bool] = True
    output_per_token: ClassVar[bool] = True
    names_outputs: ClassVar[bool] = False
    learns_new_head: ClassVar[bool] = False
    varies_rows: ClassVar[bool] = True
    is_running_text: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return "tokens"

    def width(self, config: Any) -> int:
        return int(config.vocab_size)

    def form(self, texts: Sequence[tuple[str, ...]]) -> str:
        return "blocks"

    def excerpt(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return (texts[0][:_EXCERPT],)

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Rows:
        rows = []
        for (text,) in texts:
            ids = tokenizer(text, verbose=False)["input_ids"]
            rows += _blocks(ids, max_length)
        return Rows({"input_ids": rows})

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        ids = flat["input_ids"].long()
        targets = torch.cat([ids[1:], ids.new_tensor([IGNORED])])
        targets[offsets[1:] - 1] = IGNORED  # nothing follows in the row
        return targets

    def misfit_on(self, model: Any, inputs: Mapping[str, Tensor]) -> str | None:
        """Found by what changes: outputs for the first half of a row must not depend on the second."""
        one = {name: values[:1] for name, values in inputs.items()}
        middle = int(one["attention_mask"].sum()) // 2
        ours = self.outputs(model, one)[0, :middle].float()
        changed = one["input_ids"].clone()
        changed[:, middle:] = (changed[:, middle:] + 1) % ours.shape[-1]
        theirs = self.outputs(model, {**one, "input_ids": changed})[0, :middle].float()
        if not middle or float((ours - theirs).abs().max()) <= _ROUNDING * float(ours.abs().max()):
            return None
        return "this model reads the tokens that it is to predict; use task=masked_text, or a decoder"

    def loss(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy, the mean over tokens that are predicted."""
        return token_loss(logits, targets)

    def soft_loss(self, logits: Tensor, teacher: Tensor, temperature: float, targets: Tensor, mask: Tensor) -> Tensor:
        """KL(teacher || student) at a temperature, the mean over tokens that are predicted."""
        return soft_token_loss(logits, teacher, temperature, targets)

    def predictions(self, logits: Tensor, targets: Tensor, mask: Tensor) -> list[Any]:
        """Of each row: (summed negative log likelihood of its tokens, how many of them are the likeliest)."""
        found = []
        for row, wanted in zip(logits, targets, strict=True):  # all at once, outputs would be in memory several times
            losses = F.cross_entropy(row.float(), wanted, ignore_index=IGNORED, reduction="none")
            right = (row.argmax(-1) == wanted) & (wanted != IGNORED)
            found.append(torch.stack((losses.to(wide(losses.device)).sum(), right.sum())))
        return [[loss, hits] for loss, hits in torch.stack(found).tolist()]

    def references(self, targets: Tensor) -> list[Any]:
        """Of each row: its tokens that are predicted."""
        found: list[Any] = (targets != IGNORED).sum(1).tolist()
        return found

    def values(self, labels: Iterable[Any]) -> list[float]:
        return []

    def named(self, value: Any) -> Any:
        return {"loss": value[0], "right": int(value[1])} if isinstance(value, list) else {"tokens": value}


@dataclass(frozen=True)
class MaskedTokens(NextTokens):
    """The tokens at some hidden places of a row: masked language modelling, as in BERT's pre-training.

    A row has the same hidden places in every epoch: a share of its tokens, of which 80 % are masked, 10 % replaced by a
    random token, and 10 % left.

    Args:
        share: of the tokens that are hidden.
    """

    share: float = 0.15

    problem: ClassVar[Problem] = "masked language modelling"

    def form(self, texts: Sequence[tuple[str, ...]]) -> str:
        return f"masked blocks {self.share}"

    def tokenize(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Rows:
        first, last = _special_ends(tokenizer)
        rows = []
        for (text,) in texts:
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            rows += [[*first, *block, *last] for block in _blocks(ids, max_length - len(first) - len(last))]
        generator = torch.Generator().manual_seed(
            zlib.crc32("".join(text for (text,) in texts).encode("utf-8", "replace"))
        )
        hidden = [_hide(torch.tensor(row), tokenizer, self.share, generator) for row in rows]
        originals = [token for _, original in hidden for token in original]
        return Rows({"input_ids": [row for row, _ in hidden]}, {_ORIGINAL: originals})

    def targets(self, labels: Sequence[Any], flat: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        return flat[_ORIGINAL].long()

    def misfit_on(self, model: Any, inputs: Mapping[str, Tensor]) -> str | None:
        return None


def _blocks(ids: list[int], length: int) -> list[list[int]]:
    """The ids cut into rows of this length; a shorter rest is left out, unless it is all there is."""
    whole = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    return whole or [ids]


def _special_ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    with_them = tokenizer("a", verbose=False)["input_ids"]
    without = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    for start in range(len(with_them) - len(without) + 1):
        if with_them[start : start + len(without)] == without:
            return with_them[:start], with_them[start + len(without) :]
    return [], []


def _hide(row: Tensor, tokenizer: Any, share: float, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """(the row with hidden tokens, the token that each hidden place had, else `IGNORED`)."""
    chosen = torch.rand(len(row), generator=generator) < share
    chosen &= ~torch.isin(row, torch.tensor(tokenizer.all_special_ids))
    kind, other = (
        torch.rand(len(row), generator=generator),
        torch.randint(len(tokenizer), row.shape, generator=generator),
    )
    changed = torch.where(chosen & (kind < _MASKED), tokenizer.mask_token_id, row)
    changed = torch.where(chosen & (kind >= _MASKED) & (kind < _MASKED + _REPLACED), other, changed)
    return changed.tolist(), torch.where(chosen, row, IGNORED).tolist()
