import pytest

from observability.correlation import request_id_of, trace_id_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("text", ["a", "7c0f1e", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "x" * 64])
def test_a_well_formed_request_id_is_believed(text: str) -> None:
    assert request_id_of({"x-request-id": text}) == text


@pytest.mark.parametrize("text", ["", " ", "a b", "a\nb", "x" * 65, "é", "a;b", '"a"', "-a", "${jndi:x}"])
def test_any_other_was_never_sent(text: str) -> None:
    assert request_id_of({"x-request-id": text}) == ""


def test_trace_is_named_by_the_w3c_header() -> None:
    assert trace_id_of({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}) == TRACE
    assert trace_id_of({}) == ""


@pytest.mark.parametrize(
    "text",
    [
        TRACE,
        f"00-{TRACE}-00f067aa0ba902b7",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
    ],
)
def test_malformed_trace_is_none(text: str) -> None:
    assert trace_id_of({"traceparent": text}) == ""
