"""Paths in words."""

import pytest

from nodeapi.telemetry import PATH_REASONS, PATHS
from relaymgr.sessions.direct_paths.explanation import PATHS as PATH_WORDS
from relaymgr.sessions.direct_paths.explanation import REASONS, explain, summarise


def test_every_path_and_reason_of_the_wire_has_words() -> None:
    assert set(PATH_WORDS) == set(PATHS)
    assert set(REASONS) == set(PATH_REASONS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("ipv4", "better", 18.24, 41.0),
            "The player sends directly over IPv4, because it measures better than the path before; the round trip is "
            "18.2 ms, and 41.0 ms over the relay.",
        ),
        (
            ("relay", "no_direct_path", 41.0, 41.0),
            "The player sends over the relay, because no direct path was found: their NATs or firewalls let no packet "
            "through; the round trip to the peer is 41.0 ms.",
        ),
        (
            ("relay", "none", None, None),
            "The player sends over the relay, because no other path has been chosen yet.",
        ),
    ],
)
def test_explanation_names_the_path_the_reason_and_the_figures(
    arguments: tuple[str, str, float | None, float | None], sentence: str
) -> None:
    assert explain(*arguments) == sentence


def test_summary_names_a_bounded_number_of_peers_and_the_changes() -> None:
    text = summarise(list(range(1, 255)), "ipv6", "first_path", 254)
    assert text == ("to seats 1, 2, 3, 4, 5, 6 and 248 more directly over IPv6: it is the first direct path that works")
    assert summarise([1], "relay", "path_failed", 16).endswith("stopped answering (last of 16 changes)")
    longest = max(
        (summarise(list(range(243, 255)), path, reason, 10**6) for path in PATHS for reason in PATH_REASONS), key=len
    )
    assert len(longest) <= 200  # what an entry of the timeline holds
