"""Trials of a study: a total over commands, the numbers of a study that was cut, early stops, fronts, and refusals."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydraprune.errors import UserError
from hydraprune.results.study_record import NAME, Objective, load_study, write_study
from hydraprune.search import Latency, OptunaStudy
from hydraprune.search.pruner import EpochPruner
from hydraprune.search.space import Space
from hydraprune.search.trials import Trials

SCORE = Objective("score", "accuracy", "maximize")
LATENCY = Objective("latency", "latency (ms)", "minimize")
SPACE = Space(("task=toy",), {"lr": FloatDistribution(1e-5, 1.0, log=True), "pattern": CategoricalDistribution("abc")})
SETTINGS = OptunaStudy(optuna.samplers.TPESampler, EpochPruner(startup=3), trials=12)


def opened(folder: Path, settings: OptunaStudy = SETTINGS, objectives: tuple[Objective, ...] = (SCORE,)) -> Trials:
    return Trials(settings, SPACE, objectives, folder)


def score(words: tuple[str, ...]) -> float:
    """Best at lr=0.01."""
    found = dict(word.split("=") for word in words)
    return -abs(float(found["lr"]) - 0.01) - 0.1 * "abc".index(found["pattern"])


def run(trials: Trials, count: int) -> list[tuple[str, ...]]:
    words = []
    for _ in range(count):
        asked = trials.ask()
        words.append(asked.words)
        trials.complete(asked, [score(asked.words)])
    return words


def test_a_study_that_is_cut_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    expected = run(opened(tmp_path / "whole"), 15)
    first = run(opened(tmp_path / "cut"), 6)
    # Killed while a trial ran: it is asked for again, first.
    left = opened(tmp_path / "cut").ask()
    again = opened(tmp_path / "cut")
    assert again.settled == 6
    rest = run(again, 9)
    assert rest[0] == left.words
    assert first + rest == expected
    record = again.record()
    assert [trial.number for trial in record.trials] == list(range(15))
    assert {trial.state for trial in record.trials} == {"complete"}
    (best,) = record.best
    assert best.values == [max(map(score, expected))]


def test_failed_trials_do_not_count(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    trials.fail(trials.ask(), "out of memory")
    run(trials, 2)
    assert trials.settled == 2
    assert [(trial.state, trial.why) for trial in trials.record().trials] == [
        ("failed", "out of memory"),
        ("complete", None),
        ("complete", None),
    ]


def test_a_trial_below_the_median_is_stopped(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    for value in (0.7, 0.8, 0.9):
        asked = trials.ask()
        assert not trials.is_hopeless(asked, {1: value - 0.1, 2: value})
        trials.complete(asked, [value])
    asked = trials.ask()
    assert not trials.is_hopeless(asked, {1: 0.75})
    assert not trials.is_hopeless(asked, {1: 0.75})  # looked at again
    assert trials.is_hopeless(asked, {1: 0.75, 2: 0.5})
    trials.stop(asked)
    assert trials.settled == 4
    record = trials.record()
    assert record.trials[3].state == "stopped"
    assert record.trials[3].epochs == {"1": 0.75, "2": 0.5}
    assert "0.5000 after epoch 2" in record.markdown()


def test_before_the_target_sparsity_only_the_worst_are_stopped(tmp_path: Path) -> None:
    """A trial that keeps its dense score for long, since its learning rate is low, ends below the others."""
    trials = opened(tmp_path)
    for value in (0.90, 0.91, 0.92, 0.93, 0.94):
        asked = trials.ask()
        trials.place(asked, "hash", "folder", target_epoch=2.5)
        # Until the target is reached, those that end worst look best.
        assert not trials.is_hopeless(asked, {1: 1.9 - value, 2: 1.9 - value, 3: value})
        trials.complete(asked, [value])

    def hopeless(scores: dict[int, float], target_epoch: float = 2.5) -> bool:
        asked = trials.ask()
        trials.place(asked, "hash", "folder", target_epoch)
        return trials.is_hopeless(asked, scores)

    assert not hopeless({1: 0.97})  # below the median
    assert hopeless({1: 0.5})  # below the worst quarter
    assert hopeless({1: 0.99, 2: 0.99, 3: 0.91})
    assert not hopeless({1: 0.97, 2: 0.97, 3: 0.93})
    # No trial had its target as early: there is nothing to compare with.
    assert not hopeless({1: 0.5}, target_epoch=1)


def test_of_an_error_lower_is_better(tmp_path: Path) -> None:
    perplexity = replace(SCORE, label="perplexity", direction="minimize")
    trials = opened(tmp_path, objectives=(perplexity,))
    for value in (30.0, 20.0, 25.0):
        asked = trials.ask()
        assert not trials.is_hopeless(asked, {1: value})
        trials.complete(asked, [value])
    assert not trials.is_hopeless(trials.ask(), {1: 22.0})
    assert trials.is_hopeless(trials.ask(), {1: 28.0})
    assert [trial.values for trial in trials.record().best] == [[20.0]]


@pytest.mark.parametrize("values", [{"startup": 0}, {"before_target": -0.1}, {"at_target": 1.5}])
def test_a_pruner_that_does_not_fit(values: dict[str, float]) -> None:
    with pytest.raises(UserError) as error:
        EpochPruner(**values)  # type: ignore[arg-type]
    assert error.value.key in values


def test_no_pruner_stops_none(tmp_path: Path) -> None:
    trials = opened(tmp_path, replace(SETTINGS, pruner=None))
    run(trials, 4)
    assert not trials.is_hopeless(trials.ask(), {1: -100.0})


def test_two_objectives_have_a_front(tmp_path: Path) -> None:
    trials = opened(tmp_path, replace(SETTINGS, objectives=["score", "latency"]), (SCORE, LATENCY))
    for values in ([0.9, 10], [0.8, 5], [0.7, 7], [0.95, 20], [0.8, 5]):
        asked = trials.ask()
        assert not trials.is_hopeless(asked, {1: 0.0})
        trials.complete(asked, values)
    record = trials.record()
    assert [trial.best for trial in record.trials] == [True, True, False, True, True]
    write_study(record, tmp_path)
    read = load_study(tmp_path)
    assert read is not None
    assert json.dumps(asdict(read)) == json.dumps(asdict(record))
    assert (tmp_path / "study.csv").read_text().splitlines()[0] == (
        "trial,state,best,accuracy,latency (ms),lr,pattern,folder"
    )


def test_other_words_are_another_study(tmp_path: Path) -> None:
    run(opened(tmp_path), 1)
    with pytest.raises(UserError, match=r"other words \(task=toy; now task=mrpc\).*sweep=NAME"):
        Trials(SETTINGS, replace(SPACE, shared=("task=mrpc",)), (SCORE,), tmp_path)
    whole = replace(SPACE, searched={**SPACE.searched, "lr": IntDistribution(1, 9)})
    with pytest.raises(UserError, match="other searched"):
        Trials(SETTINGS, whole, (SCORE,), tmp_path)
    # Where it runs, and the order of words, make no difference.
    same = replace(SPACE, shared=("runtime.threads=2", "task=toy", "tracker=wandb"))
    assert Trials(SETTINGS, same, (SCORE,), tmp_path).settled == 1
    with pytest.raises(UserError, match="other objectives"):
        Trials(SETTINGS, SPACE, (replace(SCORE, name="sparsity"),), tmp_path)
    assert opened(tmp_path, replace(SETTINGS, trials=99)).settled == 1


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", None])
def test_storages(storage: str | None, tmp_path: Path) -> None:
    settings = replace(SETTINGS, storage=storage and storage.format(tmp_path))
    run(opened(tmp_path, settings), 2)
    assert opened(tmp_path, settings).settled == 2


def test_values_stand_under_their_keys_whatever_the_order_of_words(tmp_path: Path) -> None:
    run(opened(tmp_path), 1)
    turned = replace(SPACE, searched=dict(reversed(SPACE.searched.items())))
    trials = Trials(SETTINGS, turned, (SCORE,), tmp_path)
    run(trials, 1)
    header, *rows = [line.split(",") for line in trials.record().comma_separated().splitlines()]
    places = {name: header.index(name) for name in ("lr", "pattern")}
    assert all(row[places["pattern"]] in "abc" and float(row[places["lr"]]) <= 1 for row in rows)


def test_a_storage_is_no_place_for_two_sweeps_of_one_name(tmp_path: Path) -> None:
    settings = replace(SETTINGS, storage=f"sqlite:///{tmp_path}/study.db")
    first = opened(tmp_path / "one", settings)
    asked = first.ask()
    with pytest.raises(UserError, match="other folder"):
        opened(tmp_path / "two", settings)
    first.complete(asked, [0.5])


def test_a_storage_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.storage=nothing://here: cannot be used"):
        opened(tmp_path, replace(SETTINGS, storage="nothing://here"))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"trials": 0}, "trials"),
        ({"seed": -1}, "seed"),
        ({"objectives": []}, "objectives"),
        ({"objectives": ["score", "score"]}, "objectives"),
        ({"objectives": ["accuracy"]}, "objectives"),
        ({"objectives": ["score", "sparsity", "latency"]}, "objectives"),
        ({"sampler": None}, "sampler"),
        ({"sampler": optuna.samplers.GridSampler}, "sampler"),
        ({"sampler": lambda seed: seed}, "sampler"),
        ({"pruner": "median"}, "pruner"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, object], key: str) -> None:
    with pytest.raises(UserError) as error:
        OptunaStudy(**{"sampler": optuna.samplers.TPESampler, **values})  # type: ignore[arg-type]
    assert error.value.key == key


@pytest.mark.parametrize(("key", "value"), [("batch", 0), ("length", 0), ("threads", -1), ("engine", "foo")])
def test_a_latency_that_cannot_be_measured(key: str, value: object) -> None:
    with pytest.raises(UserError) as error:
        Latency(**{key: value})  # type: ignore[arg-type]
    assert error.value.key == key


@pytest.mark.parametrize(
    "change", [{"objectives": []}, {"trials": [{"number": 0, "state": "complete", "values": [1, 2]}]}]
)
def test_a_record_of_another_shape_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    trials = opened(tmp_path)
    run(trials, 1)
    values = {**json.loads(json.dumps(asdict(trials.record()))), **change}
    for entry in values["trials"]:
        entry |= {"words": [], "epochs": {}}
    (tmp_path / NAME).write_text(json.dumps(values))
    with pytest.raises(UserError, match=NAME):
        load_study(tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    assert load_study(tmp_path) is None
    (tmp_path / NAME).write_text('{"name": "s", "wanted": "three"}')
    with pytest.raises(UserError, match="wanted"):
        load_study(tmp_path)
