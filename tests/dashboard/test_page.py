"""The page as a file: reproducible, self-contained, well-formed, and safe with any names in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from dashboard_helpers import NASTY, World, dense_run, kept, report, sparse_run, unfinished
from html_helpers import Page, marks

from hydraprune.dashboard import charts, write_figures, write_page
from hydraprune.dashboard.figures import all_figures
from hydraprune.dashboard.records import records
from hydraprune.errors import UserError


@pytest.fixture(scope="module")
def text(page_file: Path) -> str:
    return page_file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_equal_reports_give_equal_bytes(made: World, text: str, tmp_path: Path) -> None:
    """In another process too, which has other hashes of strings."""
    place = tmp_path / "b.html"
    program = (
        "import sys, pathlib; from hydraprune.dashboard import write_page; "
        "write_page([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", program, str(made.sweep), str(place)], check=True, env=environment)
    assert place.read_text(encoding="utf-8") == text


@pytest.fixture
def little(made: World) -> Path:
    """A folder of one comparison."""
    return made.sweep / "sst2" / "tiny"


def test_its_file_and_title(little: Path, tmp_path: Path) -> None:
    place = write_page([little])
    assert place == little / "dashboard.html"
    first = place.read_bytes()
    assert b"<h1>tiny</h1>" in first
    # A page among the runs is not a run.
    assert write_page([little]).read_bytes() == first
    place.unlink()
    deep = write_page([little], tmp_path / "new" / "place" / "p.html", NASTY)
    assert "<title>&lt;/script&gt;&lt;b&gt;&amp;&#34;not finite · hydraprune</title>" in deep.read_text(
        encoding="utf-8"
    )


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.left_open == []
    ids = Counter(attributes["id"] for attributes in page.having("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    for name in ("aria-labelledby", "for"):
        for attributes in page.having(name):
            assert set(str(attributes[name]).split()) <= set(ids), attributes
    assert page.elements[0] == ("html", {"lang": "en"})
    assert {"charset": "utf-8"} in page.having("charset")
    assert any(found.get("name") == "viewport" for found in page.having("content"))


LOADS = re.compile(r"""url\(\s*['"]?(?!data:|#|['"])|@import|(?:fetch|importScripts|EventSource|WebSocket)\(\s*['"`]""")


def test_the_page_loads_nothing(page: Page) -> None:
    """No URL that a browser would load, and a policy that forbids those that scripts would load."""
    for name in ("src", "srcset", "href", "action", "formaction", "poster", "background", "xlink:href"):
        for attributes in page.having(name):
            assert str(attributes[name]).startswith(("#", "data:")), attributes
    for attributes in page.having("style"):
        assert not LOADS.search(str(attributes["style"]))
    styles = [code for kind, code in page.code if kind == "style"]
    own = [code for kind, code in page.code if kind == "script" and 'document.getElementById("data")' in code]
    assert len(styles) == len(own) == 1
    for code in (*styles, *own):
        assert not LOADS.search(code)
        assert not re.search(r"https?://", code)
    (policy,) = [found for found in page.having("http-equiv") if found["http-equiv"] == "Content-Security-Policy"]
    rules = dict(rule.split(maxsplit=1) for rule in str(policy["content"]).split("; "))
    assert rules["default-src"] == "'none'"
    assert all("http" not in rule and "*" not in rule for rule in rules.values())
    assert not {"connect-src", "frame-src", "object-src", "media-src"} & set(rules)
    # Figures contain their data instead of a URL.
    specs = json.dumps([figure["spec"] for figure in page.data["figures"].values()])
    assert not re.search(r'"url"\s*:', specs)


def test_error_messages_are_escaped(text: str, page: Page) -> None:
    assert NASTY not in text
    assert NASTY in page.texts
    assert any(run["error"] == NASTY for run in page.data["tables"]["runs"])
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert "b" not in {tag for tag, _ in page.elements}


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    name = NASTY + "'{{ 7 * 7 }}<!--"
    for model in (name, "tiny"):
        for seed in (0, 1):
            last = sparse_run(tmp_path, name, model, "4x1", seed, overrides=[name], device=name, precision=name)
    kept(unfinished(report(name, "tiny", name, 5)), tmp_path / "odd")
    place = write_page([tmp_path], title=name)
    text = place.read_text(encoding="utf-8")
    page = Page(text)
    assert name not in text
    assert "b" not in {tag for tag, _ in page.elements}
    assert page.left_open == []
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert {found["data-task"] for found in page.having("data-run")} == {name}
    assert {found["data-model"] for found in page.having("data-run")} == {name, "tiny"}
    assert page.data["tables"]["matrix"][0]["task"] == last.spec.task


def test_every_figure_has_a_title_caption_text_alternative_and_downloads(made: World, page: Page) -> None:
    shown = all_figures(records([made.sweep]))
    kinds = Counter(figure.kind for figure in shown)
    assert kinds == {"wide": 5, "third": 9, "layers": 7, "mask": 8}
    assert [found["data-figure"] for found in page.having("data-figure")] == list(
        dict.fromkeys(str(found["data-figure"]) for found in page.having("data-figure"))
    )
    assert {found["data-figure"] for found in page.having("data-figure")} == {figure.id for figure in shown}
    assert set(page.data["figures"]) == {figure.id for figure in shown}
    saves = Counter(found["data-save"] for found in page.having("data-save"))
    assert saves == dict.fromkeys(("csv", "svg", "png"), len(shown))
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["figure"] == tags["figcaption"] == tags["details"] == len(shown)
    spoken = [str(found["aria-label"]) for found in page.having("role") if found["role"] == "img"]
    assert spoken == [f"{figure.title}. {figure.summary}" for figure in in_order(page, made)]
    for figure in shown:
        assert figure.title.strip()
        assert len(figure.caption) > 20
        assert re.search(r"\d", figure.summary), figure.id
        assert figure.rows
        assert figure.caption in page.texts


def in_order(page: Page, made: World) -> list[Any]:
    by_id = {figure.id: figure for figure in all_figures(records([made.sweep]))}
    return [by_id[str(found["data-figure"])] for found in page.having("data-figure")]


@pytest.mark.parametrize(
    ("pattern", "place", "tall", "wide"),
    [
        ("4x1", (0, 0), [4, 8, 12], []),
        ("4x1", (26, 3), [2, 6, 10, 14], []),
        ("16x1", (24, 0), [8], []),
        ("2:4", (5, 8), [], [4, 8]),
        ("2:4", (0, 10), [], [2, 6, 10]),
        ("1xchannel", (8, 8), [], []),
    ],
)
def test_borders_are_those_of_the_pattern(
    pattern: str, place: tuple[int, int], tall: list[int], wide: list[int]
) -> None:
    """Counted from the weight's first row and column, wherever the crop begins."""
    spec = charts.mask(pattern, 16, 12, *place)
    rules = [layer for layer in spec["layer"] if layer["mark"].get("style") == "border"]
    found = {
        axis: [at["at"] for rule in rules if axis in rule["encoding"] for at in spec["datasets"][rule["data"]["name"]]]
        for axis in ("y", "x")
    }
    assert found == {"y": tall, "x": wide}


def test_figures_as_files(made: World, tmp_path: Path) -> None:
    written = write_figures([made.sweep], tmp_path / "new" / "figures")
    shown = all_figures(records([made.sweep]))
    assert [path.name for path in written] == [f"{figure.id}.{kind}" for figure in shown for kind in ("svg", "png")]
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == {path.name for path in written}
    for figure in shown:
        svg = ElementTree.parse(tmp_path / "new" / "figures" / f"{figure.id}.svg").getroot()
        assert svg.tag.endswith("}svg")
        assert marks(svg) >= min(len(figure.rows), 5), figure.id
        assert figure.title in "".join(svg.itertext())
        png = (tmp_path / "new" / "figures" / f"{figure.id}.png").read_bytes()
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert png.endswith(b"IEND\xaeB`\x82")
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
        assert width > 400
        assert height > 100


@pytest.mark.parametrize("content", ["nothing", "dense", "failures"])
def test_pages_with_few_runs(content: str, tmp_path: Path) -> None:
    if content == "dense":
        dense_run(tmp_path, "sst2", "tiny", 0)
    if content == "failures":
        kept(unfinished(replace(report("sst2", "tiny", "4x1", 0), status="failed")), tmp_path / "run")
    page = Page(write_page([tmp_path]).read_text(encoding="utf-8"))
    assert page.left_open == []
    assert ("No runs here yet." in page.texts) == (content == "nothing")
    assert len(page.having("data-run")) == (content != "nothing")
    assert ("failures" in {found["id"] for found in page.having("id")}) == (content == "failures")
    assert write_figures([tmp_path], tmp_path / "figures") or content != "dense"


def test_a_page_that_cannot_be_written(little: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "folder", tmp_path / "file" / "page.html"):
        with pytest.raises(UserError, match=r"cannot be written|is a folder") as raised:
            write_page([little], out)
        assert str(out) in str(raised.value)
        assert "--out" in str(raised.value)
    with pytest.raises(UserError, match=r"cannot be written|is a folder") as raised:
        write_figures([little], tmp_path / "file")
    assert "--figures" in str(raised.value)
    with pytest.raises(UserError, match="no such folder"):
        write_page([tmp_path / "no"], tmp_path / "page.html")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_an_older_page_stays_if_writing_fails(little: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "page.html"
    older = '<meta name="generator" content="hydraprune 0.0">older'
    place.write_text(older)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left"):
        write_page([little], place)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", older)]


def test_a_file_that_is_not_a_dashboard_is_not_overwritten(little: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.html").write_text("mine")
    with pytest.raises(UserError, match=r"--out .*notes.html: exists and is not a dashboard"):
        write_page([little], tmp_path / "notes.html")
    assert (tmp_path / "notes.html").read_text() == "mine"


def no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_from_the_command_line(hydraprune: Callable[..., Any], little: Path, workplace: Path) -> None:
    done = hydraprune("dashboard", str(little), "--out", "new/page.html", "--title", "A title", "--figures", "figures")
    assert done.code == 0, done.err
    page, figures = done.out.splitlines()
    count = len(all_figures(records([little])))
    assert re.fullmatch(r"new/page\.html  \d\.\d MB, one self-contained file", page)
    assert figures == f"{2 * count} figures in figures"
    assert {path.name for path in (workplace / "new").iterdir()} == {"page.html"}
    assert "<h1>A title</h1>" in (workplace / "new" / "page.html").read_text(encoding="utf-8")
    kinds = Counter(path.suffix for path in (workplace / "figures").iterdir())
    assert kinds == {".svg": count, ".png": count}


def test_mistakes_are_one_line(hydraprune: Callable[..., Any], little: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, message in (
        (["no/such"], "no/such: no such folder"),
        ([str(little), "--out", "file/page.html"], "file/page.html: cannot be written"),
        ([str(little), "--out", "p.html", "--figures", "file"], "file: cannot be written"),
    ):
        refused = hydraprune("dashboard", *words)
        assert refused.code == 2
        assert refused.err.startswith(f"hydraprune: error: {message}")
        assert refused.err.count("\n") == 1
