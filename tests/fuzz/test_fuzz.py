"""The whole corpus, and mutations of it for as long as CI has: all targets together get SECONDS. Longer by `make fuzz`.

What fails is in the message, with the seed that makes it again.
"""

import os
import random

import pytest

from tests.fuzz.driver import CORPUS, Fault, explore, replay, run, smaller
from tests.fuzz.inputs import Form, mutate, script, steps_of
from tests.fuzz.targets import TARGETS, Target

SECONDS = 12.0  # the corpus takes some more; the XDP streams and the REST API have the rest of the minute


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_neither_the_corpus_nor_mutations_of_it_show_a_fault(target: Target) -> None:
    if reason := target.missing():
        assert os.environ.get("CI") != "true", reason
        pytest.skip(reason)
    assert replay(target) > 0
    explore(target, SECONDS / len(TARGETS), random.randrange(10**6))


def test_each_folder_of_the_corpus_is_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def test_a_fault_is_found_again_by_its_seed_and_made_small() -> None:
    def reads_a_length(content: bytes) -> None:
        if len(content) > 20 and content[20] > 127:
            raise IndexError

    target = Target("stun", "bytes", reads_a_length, lambda: iter(()))
    with pytest.raises(Fault, match=r"run \d+ of --seed 7") as first:
        explore(target, 60.0, 7)
    with pytest.raises(Fault) as again:
        explore(target, 60.0, 7)
    assert again.value.args == first.value.args
    small = smaller(target, first.value)
    assert len(small) == 21
    with pytest.raises(Fault):
        run(target, small, "")


@pytest.mark.parametrize("form", ["bytes", "script", "json"])
def test_mutations_follow_from_the_seed_and_are_various(form: Form) -> None:
    corpus = [b'{"a": [1, "x", {"b": null}]}', script([(0, b"one"), (9, b"two")]), b""]
    made = [mutate(form, corpus, draw) for draw in map(random.Random, range(200))]
    assert made == [mutate(form, corpus, draw) for draw in map(random.Random, range(200))]
    assert len(set(made)) > 100


def test_a_script_is_read_as_it_was_written() -> None:
    steps = [(0, b""), (255, b"x" * 1400), (7, b"y")]
    assert steps_of(script(steps)) == steps
    assert steps_of(script(steps)[:-1]) == [*steps[:2], (7, b"")]
