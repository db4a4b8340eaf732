import pytest

from causeway_client.rest_errors import ManagerError, ManagerUnreachable, MatchNotFound


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (401, "unauthorized", "check the key"),
        (418, "unknown", "correct the fields"),
        (502, "unknown", "report the error"),
        (429, "unknown", "wait as Retry-After says"),
    ],
)
def test_advice_follows_the_code_and_then_the_status(status: int, code: str, advice: str) -> None:
    error = ManagerError(status, code, "No.")
    assert error.advice.startswith(advice)
    assert str(error).startswith(f"{status} {code}: No. Next: {advice}")


def test_only_a_refusal_that_the_server_may_accept_later_is_temporary() -> None:
    assert ManagerError(429, "throttled", "").is_temporary
    assert ManagerError(503, "unknown", "", retry_after=1.0).is_temporary
    assert not ManagerError(503, "unknown", "").is_temporary
    assert not ManagerUnreachable("No answer.").is_temporary


def test_problems_of_fields_are_part_of_the_message_and_other_details_are_not() -> None:
    details = {"ip": [{"message": "Missing.", "code": "required"}], "other": "text", "list": ["text"]}
    assert str(ManagerError(400, "invalid", "No.", details)).startswith("400 invalid: No. ip: Missing. Next:")
    assert ManagerError(400, "invalid", "No.", ["text"]).details == ["text"]


def test_a_match_that_was_not_found_names_its_reason() -> None:
    assert MatchNotFound("expired").reason == "expired"
    assert str(MatchNotFound("removed")).startswith("removed: ")
