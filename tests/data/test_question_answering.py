"""Question answering: scores against SQuAD's own, windows and spans of tokens, data files, and runs from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from data_helpers import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForQuestionAnswering

from hydraprune.data.answers import answer_f1, exact_match
from hydraprune.data.batches import Batches, Encoded
from hydraprune.data.encoding import encode, encode_once
from hydraprune.data.examples import Examples
from hydraprune.data.question_answering import QuestionTask
from hydraprune.data.span_labels import Spans, best_span
from hydraprune.data.toy_tasks import ToyQuestionTask
from hydraprune.errors import UserError
from hydraprune.models.tiny import TinyModel
from hydraprune.utils.cache import Cache

CASES = json.loads((Path(__file__).parent / "squad_scores.json").read_text())["cases"]
TINY = TinyModel("tiny", 32, 1, 2, 32)
WORDS = ["the", "plot", "good", "unheardof", "x", "is", "dull", ",", "film"]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_scores_are_those_of_squad(case: int) -> None:
    row = CASES[case]
    given = row["predictions"], row["references"]
    assert answer_f1(*given) == pytest.approx(row["f1"], abs=1e-12)
    assert exact_match(*given) == pytest.approx(row["exact_match"], abs=1e-12)


# Rows and spans -----------------------------------------------------------------------------------


def answered(words: list[str], first: int, length: int) -> tuple[tuple[str, str], list[tuple[str, int]]]:
    """An example whose answer is some words of the context."""
    answer = " ".join(words[first : first + length])
    start = len(" ".join(words[:first])) + (first > 0)
    return ("the plot ?", " ".join(words)), [(answer, start)]


EXAMPLES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).flatmap(
    lambda words: st.builds(
        answered, st.just(words), st.integers(0, len(words) - 1), st.integers(1, min(4, len(words)))
    )
)


def certain(data: Encoded) -> list[Any]:
    """Logits that are sure of the targets of every row."""
    rows = []
    for row, length in enumerate(data.lengths.tolist()):
        logits = torch.zeros(length, 2)
        logits[data.labels[row], torch.arange(2)] = 10.0
        rows.append(logits)
    return rows


@given(st.lists(EXAMPLES, min_size=1, max_size=4), st.integers(40, 60), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_a_sure_model_finds_every_answer(examples: list[Any], max_length: int, stride: int) -> None:
    """Wherever a row holds the whole answer its tokens are the target, and they are the answer's characters again."""
    head = Spans(stride=stride)
    data = encode(TINY.tokenizer(), Examples(*zip(*examples, strict=True)), max_length, head)  # type: ignore[arg-type]
    assert int(data.beside["rows"].sum()) == len(data)
    found, references = head.collect(certain(data), [], data)
    held = torch.repeat_interleave(torch.arange(len(examples)), data.beside["rows"])
    for number, ((_, context), answers) in enumerate(examples):
        rows = (held == number).nonzero().flatten()
        assert references[number] == [answers[0][0]]
        if bool((data.labels[rows, 0] > 0).any()):
            assert found[number] == answers[0][0]
        covered = {
            character
            for row in rows.tolist()
            for token in range(int(data.offsets[row]), int(data.offsets[row + 1]))
            for character in range(int(data.beside["begin"][token]), int(data.beside["end"][token]))
            if int(data.beside["begin"][token]) >= 0
        }
        assert covered == {place for place, sign in enumerate(context) if sign != " "}, "no character is lost"


def test_the_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForQuestionAnswering(BertConfig(**sizes, vocab_size=20)).eval()
    head, ids = Spans(), torch.randint(20, (3, 6))
    targets = torch.tensor([[1, 2], [0, 0], [4, 5]])
    outputs = model(input_ids=ids, start_positions=targets[:, 0], end_positions=targets[:, 1])
    logits = head.outputs(model, {"input_ids": ids})
    whole = torch.ones(3, 6, dtype=torch.bool)
    assert torch.allclose(head.loss(logits, targets, whole), outputs.loss)


def test_padding_changes_neither_loss() -> None:
    head, targets = Spans(), torch.tensor([[1, 2]])
    logits, teacher, more = torch.randn(1, 4, 2), torch.randn(1, 4, 2), 5 * torch.randn(1, 3, 2)
    short, long = torch.ones(1, 4, dtype=torch.bool), torch.arange(7).unsqueeze(0) < 4
    padded, taught = torch.cat([logits, more], 1), torch.cat([teacher, more.flip(1)], 1)
    assert torch.equal(head.loss(padded, targets, long), head.loss(logits, targets, short))
    ours = head.soft_loss(padded, taught, 2.0, targets, long)
    assert torch.allclose(ours, head.soft_loss(logits, teacher, 2.0, targets, short))
    assert bool(head.soft_loss(padded, taught, 0.2, targets, long).isfinite())
    p, q = (torch.softmax(each / 2.0, 1) for each in (teacher, logits))
    assert torch.allclose(ours, (p * (p / q).log()).sum(1).mean(), atol=1e-6)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_the_best_span_is_the_best_of_all(tokens: int, longest: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, allowed = torch.randn(tokens, 2, generator=generator), torch.rand(tokens, generator=generator) < 0.7
    spans = {
        (first, last): float(logits[first, 0] + logits[last, 1])
        for first in range(tokens)
        for last in range(first, min(first + longest, tokens))
        if allowed[first] and allowed[last]
    }
    score, place = best_span(logits, allowed, longest)
    if not spans:
        assert place is None
        return
    assert place is not None
    assert score == pytest.approx(max(spans.values()), abs=1e-6)
    assert spans[place] == pytest.approx(score, abs=1e-6)


def test_no_answer_is_predicted_only_where_it_may_be() -> None:
    examples = Examples([("the plot ?", "the plot is good")] * 2, [[("good", 12)], []])
    for allowed, expected in ((None, "good"), (True, ""), (False, "good")):
        head = Spans(stride=8, no_answer=allowed)
        data = encode(TINY.tokenizer(), examples, 40, head)
        sure = certain(data)
        sure[0][0] += 20.0 if allowed else 0.0  # of the token that stands for none
        found, references = head.collect(sure, [], data)
        assert (found[0], references) == (expected, [["good"], []])
        assert found[1] == ("" if allowed is not False else found[1])
    unanswered = Examples(examples.texts[:1], [None])
    data = encode(TINY.tokenizer(), unanswered, 40, Spans(stride=8))
    assert Spans(stride=8).collect(certain(data), [], data)[0] != [""], "unknown answers say nothing about none"


def test_a_long_question_is_cut(tmp_path: Path) -> None:
    examples = Examples([("the plot " * 60, "the film is good")], [[("good", 12)]])
    data = encode(TINY.tokenizer(), examples, 48, Spans(stride=8))
    assert data.truncated == 1
    assert int(data.lengths.max()) <= 48
    assert data.labels[0].tolist() != [0, 0]
    cache = Cache(tmp_path, 1)
    for _ in range(2):
        kept = encode_once(TINY.tokenizer(), examples, 48, Spans(stride=8), cache)
        assert torch.equal(kept.labels, data.labels)
        assert kept.beside.keys() == data.beside.keys()
        assert kept.inputs.keys() == data.inputs.keys()


def test_batches_count_rows() -> None:
    context = " ".join(WORDS * 20)
    data = encode(TINY.tokenizer(), Examples([("the ?", context)] * 3, [[("plot", 4)]] * 3), 64, Spans(stride=16))
    assert len(data) > 3
    batches = Batches(data, 4, shuffle_seed=0)
    assert sorted(torch.cat(batches.order()).tolist()) == list(range(len(data)))
    assert batches.batch(torch.tensor([0, 1])).labels.shape == (2, 2)


def test_an_answer_without_a_row_is_counted() -> None:
    context = " ".join(["plot"] * 60)
    for words, lost in ((3, 0), (58, 1)):
        answers = [(" ".join(["plot"] * words), 0)]
        data = encode(TINY.tokenizer(), Examples([("the ?", context)], [answers]), 40, Spans(stride=8))
        assert data.truncated == lost


@pytest.mark.parametrize("answer", ["中", "中国", "😀", "face", "the face"])
def test_answers_whose_characters_are_several_tokens(answer: str) -> None:
    context = f"the face is 中国 😀 {answer} today"
    start = context.rindex(answer)
    data = encode(byte_level(), Examples([("what", context)], [[(answer, start)]]), 64, Spans(stride=16))
    first, last = data.labels[0].tolist()
    # A token of a byte-level tokenizer has the space before it.
    assert context[int(data.beside["begin"][first]) : int(data.beside["end"][last])].strip() == answer
    assert int(data.beside["end"][last]) == start + len(answer)
    assert Spans(stride=16).collect(certain(data), [], data)[0] == [answer]


def test_a_question_of_many_bytes_is_cut() -> None:
    data = encode(byte_level(), Examples([("中国" * 20, "the face is big")], [[("big", 12)]]), 64, Spans(stride=16))
    assert data.truncated == 1
    assert int(data.lengths.max()) <= 64


# Data ---------------------------------------------------------------------------------------------

ROWS = [
    {"id": str(place), "question": "the plot ?", "context": "the plot is good", "answers": answers}
    for place, answers in enumerate([{"text": ["good"], "answer_start": [12]}, {"text": [], "answer_start": []}] * 10)
]


def task(path: Path | str, **more: Any) -> QuestionTask:
    keys: dict[str, Any] = {
        "name": "question_answering", "path": str(path), "metrics": ["f1", "exact_match"], "max_length": 64,
        "question": "question", "context": "context", "answers": "answers", "stride": 16, "longest_answer": 30,
        "no_answer": None, "validation_share": 0.25,
    }  # fmt: skip
    return QuestionTask(**{**keys, **more})


def nested(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as SQuAD's own files hold them."""
    paragraphs = []
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        asked = {"id": row["id"], "question": row["question"], "answers": answers, "is_impossible": not answers}
        paragraphs.append({"context": row["context"], "qas": [asked]})
    return {"version": "v2.0", "data": [{"title": "films", "paragraphs": paragraphs}]}


@pytest.mark.parametrize("form", ["lines", "list", "nested", "pairs"])
def test_files(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.jsonl" if form == "lines" else "a.json")
    if form == "pairs":
        pairs = [{**row, "answers": nested([row])["data"][0]["paragraphs"][0]["qas"][0]["answers"]} for row in ROWS]
        path.write_text(json.dumps(pairs))
    elif form == "nested":
        path.write_text(json.dumps(nested(ROWS)))
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)) if form == "lines" else json.dumps(ROWS))
    data = task(path).load()
    assert (len(data.train), len(data.evaluations["validation"])) == (15, 5)
    assert set(data.train.texts) == {("the plot ?", "the plot is good")}
    assert sorted(map(len, data.train.labels)) == sorted(map(len, data.train.labels))
    assert {tuple(answers) for answers in data.train.labels} == {(), (("good", 12),)}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": ["good"], "answer_start": [3]}, r"row 1: the answer 'good' is not at character 3 of context, but at"),
        ({"text": ["bad"], "answer_start": [0]}, r"but nowhere in it; count characters from 0"),
        ({"text": ["good"], "answer_start": []}, "1 texts and 0 starts"),
        ({"text": ["good"], "answer_start": [-4]}, "which are no answers"),
        ({"text": [" "], "answer_start": [7]}, "which are no answers"),
        ("good", 'give {"text"'),
    ],
)
def test_wrong_answers_are_refused(answers: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{**ROWS[0], "answers": answers}] * 8))
    with pytest.raises(UserError, match=message):
        task(tmp_path / "a.json").load()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stride": 40}, "task.stride=40: must be at least 0 and at most half of task.max_length=64"),
        ({"max_length": 16, "stride": 4}, "task.max_length=16: must be at least 32 tokens"),
        ({"longest_answer": 0}, "task.longest_answer=0"),
        ({"metrics": ["accuracy"]}, "is a metric of classes, and the task has answers; choose from f1, exact_match"),
    ],
)
def test_wrong_settings_are_refused(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        task(tmp_path / "a.json", **more)


def test_white_space_around_an_answer_is_no_part_of_it(tmp_path: Path) -> None:
    answers = {"text": [" good"], "answer_start": [11]}
    (tmp_path / "a.json").write_text(json.dumps([{**ROWS[0], "answers": answers}] * 8))
    assert set(map(tuple, task(tmp_path / "a.json").load().train.labels)) == {(("good", 12),)}


def test_toy_answers_are_in_their_sentences() -> None:
    data = ToyQuestionTask("toy_questions", 200, 50, 0, 64).load()
    answered = [
        (texts[1], answers[0]) for texts, answers in zip(data.train.texts, data.train.labels, strict=True) if answers
    ]
    assert 120 < len(answered) < 170
    assert all(context[start : start + len(text)] == text for context, (text, start) in answered)


# Runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distill", ["hidden", "logits", "none"])
def test_a_run_answers_questions(
    distill: str, train: Callable[..., Any], hydraprune: Callable[..., Any], small: tuple[str, ...], workplace: Path
) -> None:
    words = [word for word in small if not word.startswith("task=")]
    finished = train(*words, "task=toy_questions", f"distill={distill}", "pattern=mixed", "scheduler.frequency=2")
    assert finished.code == 0, finished.err
    (path,) = workplace.glob("outputs/toy_questions/tiny/mixed/*/report.json")
    report = json.loads(path.read_text())
    assert (report["metric"], report["pattern_ok"]) == ("f1", True)
    model = path.parent / "model"
    assert json.loads((model / "config.json").read_text())["architectures"] == ["BertForQuestionAnswering"]
    assert "pipeline_tag: question-answering" in (model / "README.md").read_text()
    if distill != "none":
        return
    given = [word for word in words if word.startswith(("task.", "cache."))]
    scored = hydraprune("eval", str(model), "task=toy_questions", *given, "--predictions", "p.jsonl")
    assert scored.code == 0, scored.err
    assert f"f1  {report['final']['f1']:.4f}" in scored.out
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert first.keys() == {"set", "example", "question", "context", "label", "prediction"}
    asked = [{"question": "the plot ?", "context": "the plot is good"}]
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    words = ("predict", str(model), "task=question_answering", "task.stride=8", "--file", "asked.jsonl")
    assert "give task.no_answer=true, or task.no_answer=false" in hydraprune(*words).err
    predicted = hydraprune(*words, "task.no_answer=false")
    assert predicted.code == 0, predicted.err
    assert json.loads(predicted.out)["prediction"] in " the plot is good"
