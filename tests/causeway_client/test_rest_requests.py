import httpx
import pytest

from causeway_client import rest_requests
from causeway_client.rest_errors import ManagerError
from causeway_client.rest_requests import _without_secrets


def answering(*answers: httpx.Response) -> tuple[httpx.AsyncClient, list[httpx.Request]]:
    """A client whose requests are answered in this order, and the list of its requests."""
    waiting, requests = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return waiting.pop(0)

    return httpx.AsyncClient(base_url="http://manager", transport=httpx.MockTransport(answer)), requests


def test_clients_that_were_refused_together_return_at_different_times() -> None:
    pauses = [rest_requests.pause_seconds(60.0, 0) for _ in range(500)]
    assert min(pauses) >= 60
    assert max(pauses) - min(pauses) > 10
    assert [rest_requests.pause_seconds(None, attempt) // 1 for attempt in (0, 30)] <= [2, 13]


async def test_a_temporary_refusal_is_repeated_and_another_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_requests, "RETRY_AFTER", 0.01)
    http, requests = answering(httpx.Response(429), httpx.Response(200, json={"id": 1}))
    assert await rest_requests.request(http, "GET", "/x", retry_for=60) == {"id": 1}
    assert len(requests) == 2
    http, requests = answering(httpx.Response(404, json={"code": "not_found", "message": "There is none."}))
    with pytest.raises(ManagerError, match="404 not_found: There is none"):
        await rest_requests.request(http, "GET", "/x", retry_for=60)
    assert len(requests) == 1


async def test_server_sent_events_are_read_in_every_form_of_the_standard() -> None:
    body = b': comment\n\nevent: ticket\ndata:{"a":\ndata: 1}\n\ndata: {"b": 2}\n\n'
    http, _ = answering(httpx.Response(200, content=body, headers={"Content-Type": "text/event-stream"}))
    found = [event async for event in rest_requests.server_sent_events(http, "/events")]
    assert found == [("ticket", {"a": 1}), ("message", {"b": 2})]


async def test_a_refused_stream_is_a_typed_error() -> None:
    http, _ = answering(httpx.Response(503, headers={"Retry-After": "7"}))
    with pytest.raises(ManagerError) as raised:
        await anext(rest_requests.server_sent_events(http, "/tickets/secret/events"))
    assert (raised.value.status, raised.value.retry_after) == (503, 7)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://user:password@host:8443/matchmaker/tickets/secret/events?key=x",
            "https://host:8443/matchmaker/tickets/{id}/events",
        ),
        ("http://[::1]:80/groups/g/members/secret", "http://[::1]/groups/g/members/{id}"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert _without_secrets(httpx.URL(url)) == shown
