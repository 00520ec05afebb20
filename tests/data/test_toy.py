"""The toy sentiment language: reproducible, well separated, and out of reach for word counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hydraprune.data import toy

STRENGTH = {
    **dict.fromkeys(["charming", "clever", "fresh", "fun", "good", "nice"], 2),
    **dict.fromkeys(["brilliant", "gorgeous", "perfect", "superb", "wonderful"], 4),
    **dict.fromkeys(["boring", "clumsy", "dull", "poor", "silly", "weak"], -2),
    **dict.fromkeys(["awful", "dreadful", "horrible", "terrible", "unbearable"], -4),
}
FACTOR = {
    **dict.fromkeys(["deeply", "really", "truly", "very"], 2.0),
    **dict.fromkeys(["mildly", "slightly", "somewhat"], 0.5),
    **dict.fromkeys(["barely", "hardly", "scarcely"], -0.5),
    **dict.fromkeys(["never", "not"], -1.0),
}
SPEAKER = {"critics": 1.0, "everyone": 1.0, "nobody": -1.0, "none": -1.0}


def read(words: list[str]) -> float:
    """Evaluate a sentence by the rules of the module's docstring, independently of the grammar."""
    if words[0] == "although":
        return read(words[words.index(",") + 1 :])
    if words[0] in SPEAKER:
        return SPEAKER[words[0]] * read(words[words.index("that") + 1 :])
    for position, word in enumerate(words):
        if word in ("but", "yet"):
            return read(words[position + 1 :])
    if "though" in words:
        return read(words[: words.index("though")])
    if "and" in words:
        position = words.index("and")
        return read(words[:position]) + read(words[position + 1 :])
    strength = float(STRENGTH[words[-1]])
    for word in words[3:-1]:
        strength *= FACTOR[word]
    return strength


@pytest.fixture(scope="module")
def data() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    return toy.generate(12_000)


def test_equal_arguments_give_equal_lists() -> None:
    assert toy.generate(500, 100, seed=3) == toy.generate(500, 100, seed=3)
    assert toy.generate(500, 100, seed=3) != toy.generate(500, 100, seed=4)


def test_lists_do_not_depend_on_the_hash_seed() -> None:
    source = str(Path(toy.__file__).parents[2])
    code = "from hydraprune.data import toy; print(toy.generate(50, 50), toy.vocabulary())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": source},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {f"{toy.generate(50, 50)} {toy.vocabulary()}\n"}


def test_evaluation_does_not_depend_on_the_training_size() -> None:
    assert toy.generate(1)[1] == toy.generate(5000)[1]


def test_a_longer_training_list_begins_with_the_shorter_one() -> None:
    assert toy.generate(300)[0] == toy.generate(900)[0][:300]


def test_the_lists_have_their_sizes_and_do_not_overlap(data) -> None:
    train, evaluation = data
    assert (len(train), len(evaluation)) == (12_000, 2000)
    held_out = {sentence for sentence, _ in evaluation}
    assert len(held_out) == 2000
    assert held_out.isdisjoint(sentence for sentence, _ in train)
    # The language is so large that few sentences occur twice in such a list.
    assert len({sentence for sentence, _ in train}) > 0.95 * len(train)


def test_a_long_training_list_has_no_evaluation_sentence() -> None:
    # Ten thousand evaluation sentences include many short ones, which would be drawn again.
    train, evaluation = toy.generate(20_000, 10_000)
    assert {sentence for sentence, _ in evaluation}.isdisjoint(sentence for sentence, _ in train)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_are_balanced(seed: int) -> None:
    for pairs in toy.generate(4000, seed=seed):
        assert {label for _, label in pairs} == {0, 1}
        assert 0.45 <= sum(label for _, label in pairs) / len(pairs) <= 0.55


def test_the_vocabulary_is_the_set_of_emitted_words(data) -> None:
    words = toy.vocabulary()
    assert list(words) == sorted(set(words))
    assert len(words) <= 150
    emitted = {word for pairs in data for sentence, _ in pairs for word in sentence.split()}
    assert emitted == set(words)


def test_labels_follow_the_documented_rules(data) -> None:
    for pairs in data:
        for sentence, label in pairs:
            strength = read(sentence.split())
            assert strength != 0
            assert label == int(strength > 0), sentence


def test_every_construction_occurs(data) -> None:
    words = Counter(word for sentence, _ in data[0] for word in set(sentence.split()))
    for word in ("but", "although", "though", "and", "nobody", "hardly", "not", "very"):
        assert words[word] > 0.01 * len(data[0])
    assert max(len(sentence.split()) for pairs in data for sentence, _ in pairs) <= 60


def test_a_bag_of_words_says_little_about_the_label(data) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    train, evaluation = data
    counts = text.CountVectorizer(token_pattern=r"\S+")
    features = counts.fit_transform([sentence for sentence, _ in train])
    model = linear.LogisticRegression(max_iter=1000).fit(features, [label for _, label in train])
    score = model.score(
        counts.transform([sentence for sentence, _ in evaluation]),
        [label for _, label in evaluation],
    )
    assert 0.52 < score <= 0.65


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize("name", ["train", "evaluation"])
def test_sizes_below_one_are_refused(name: str, value: int) -> None:
    sizes = {"train": 5, "evaluation": 5, name: value}
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got {value}$"):
        toy.generate(**sizes)
