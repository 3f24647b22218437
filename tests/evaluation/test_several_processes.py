"""Tuning and scores of a job: those of a single process."""

import dataclasses

import pytest

from lungseg_jax.evaluation.evaluator import evaluate
from lungseg_jax.evaluation.tuning import tune
from lungseg_jax.inference.ensemble.members import AVERAGE
from lungseg_jax.runtime.sharing import own_share

SLICES = 4  # the fifth process of five has none


@pytest.mark.parametrize(
    "processes,names", [(2, ["10", "20", "30", AVERAGE]), (5, ["10"])]
)
def test_processes_share_tuning_and_scoring(
    every, slices, as_processes, processes, names
):
    some, stressed = list(slices(SLICES)), list(slices(SLICES + 2, seed=1))
    members = every.subset(names)

    def work():
        tuning = tune(members, lambda: own_share(some), SLICES, stressed=stressed)
        tuned = dataclasses.replace(members, tuning=tuning)
        return tuning, evaluate(tuned, own_share(some), SLICES)

    expected = work()  # of a single process
    for results in as_processes(processes, work):
        tuning, evaluation = results
        assert list(evaluation["slices"]) == [s.name for s in some]
        assert _numbers(results) == pytest.approx(_numbers(expected), nan_ok=True)
        assert tuning["choices"].keys() == expected[0]["choices"].keys()


def _numbers(content) -> list:
    """All numbers in nested content, in their order."""
    if isinstance(content, dict):
        content = content.values()
    if isinstance(content, str) or content is None:
        return []
    if isinstance(content, (bool, int, float)):
        return [content]
    return [number for child in content for number in _numbers(child)]
