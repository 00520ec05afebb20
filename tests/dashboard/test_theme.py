"""The contrast of text in the figures, in both themes."""

from __future__ import annotations

import pytest

from hydraprune.dashboard.charts import per_layer
from hydraprune.dashboard.theme import DARK, LIGHT, Colors

# WCAG 2, level AA, for text of any size.
ENOUGH = 4.5


def channels(color: str) -> list[float]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def luminance(rgb: list[float]) -> float:
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    dim, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dim + 0.05)


def shade(ramp: tuple[str, ...], share: float) -> list[float]:
    """As Vega interpolates it: linearly from each color of a ramp to the next."""
    place = share * (len(ramp) - 1)
    i = min(int(place), len(ramp) - 2)
    return [a + (b - a) * (place - i) for a, b in zip(channels(ramp[i]), channels(ramp[i + 1]), strict=True)]


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_contrast_with_the_background(colors: Colors) -> None:
    for color in (colors.text, colors.muted, *colors.labels):
        assert contrast(channels(color), channels(colors.background)) >= ENOUGH, color


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_numbers_have_contrast_with_the_ramp(colors: Colors) -> None:
    texts = {layer["mark"]["style"]: layer for layer in per_layer()["layer"] if layer["mark"]["type"] == "text"}
    border = float(texts["on-low"]["transform"][0]["filter"].removeprefix("datum.sparsity < "))
    assert texts["on-high"]["transform"][0]["filter"] == f"datum.sparsity >= {border}"
    for share in (i / 400 for i in range(401)):
        text = colors.on_low if share < border else colors.on_high
        assert contrast(channels(text), shade(colors.ramp, share)) >= ENOUGH, share
