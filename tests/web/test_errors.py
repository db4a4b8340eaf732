"""Every error has one shape."""

import pytest
from django.db import DataError, OperationalError
from django.test import Client, RequestFactory
from rest_framework import exceptions, serializers
from rest_framework.test import APIClient

from web.errors import ApiError, Conflict, Invalid, NotFound, Unauthorized, exception_handler, fields, server_error


class Nested(serializers.Serializer):
    class User(serializers.Serializer):
        ip = serializers.IPAddressField()

    users = User(many=True)
    words = serializers.ListField(child=serializers.CharField(max_length=3), required=False)
    number = serializers.IntegerField(required=False)

    def validate(self, attrs: dict) -> dict:
        raise serializers.ValidationError("Never right.", "never")


def details_of(data: object) -> dict:
    serializer = Nested(data=data)
    with pytest.raises(exceptions.ValidationError) as refused:
        serializer.is_valid(raise_exception=True)
    response = exception_handler(refused.value, {})
    assert response is not None
    assert response.status_code == 400
    assert response.data.keys() == {"message", "code", "details"}
    assert response.data["code"] == "invalid"
    return response.data["details"]


def test_each_field_is_named_with_code_and_message() -> None:
    details = details_of({"users": [{"ip": "1.1.1.1"}, {"ip": "x"}, {}], "words": ["a", "long"], "number": "x"})
    assert {path: [problem["code"] for problem in problems] for path, problems in details.items()} == {
        "users[1].ip": ["invalid"],
        "users[2].ip": ["required"],
        "words[1]": ["max_length"],
        "number": ["invalid"],
    }
    assert details["users[2].ip"][0]["message"] == "This field is missing. Add it."


@pytest.mark.parametrize("data", [[], "text", 5, None])
def test_body_that_is_no_object_is_named_body(data: object) -> None:
    assert list(details_of(data)) == ["body"]


def test_problem_of_the_whole_is_named_body() -> None:
    assert details_of({"users": []})["body"][0]["code"] == "never"


def test_fields_named_message_and_code_are_still_fields() -> None:
    problem = {"message": "No.", "code": "no"}
    assert fields({"message": [problem], "code": [problem]}) == {"message": [problem], "code": [problem]}


def test_error_of_a_service_keeps_its_status_code_and_details() -> None:
    response = exception_handler(Conflict("Taken.", code="taken", details={"a": 1}), {})
    assert response is not None
    assert (response.status_code, response.data) == (409, {"message": "Taken.", "code": "taken", "details": {"a": 1}})


def test_401_carries_a_challenge() -> None:
    for error in (Unauthorized(), exceptions.NotAuthenticated(), exceptions.AuthenticationFailed()):
        response = exception_handler(error, {})
        assert response is not None
        assert response.status_code == 401
        assert response.data["code"] == "unauthorized"
        assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (exceptions.ParseError(), 400, "malformed"),
        (exceptions.PermissionDenied(), 403, "forbidden"),
        (exceptions.NotFound(), 404, "not_found"),
        (NotFound(), 404, "not_found"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (exceptions.NotAcceptable(), 406, "not_acceptable"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.Throttled(wait=2.1), 429, "throttled"),
        (OperationalError("could not connect to 10.0.0.1"), 503, "database_unavailable"),
    ],
)
def test_error_has_a_stable_code(error: Exception, status: int, code: str) -> None:
    response = exception_handler(error, {})
    assert response is not None
    assert (response.status_code, response.data["code"]) == (status, code)
    assert "10.0.0.1" not in response.data["message"]


def test_throttled_says_when_to_come_back() -> None:
    response = exception_handler(exceptions.Throttled(wait=2.1), {})
    assert response is not None
    assert response["Retry-After"] == "3"


def test_unexpected_error_is_left_to_django() -> None:
    assert exception_handler(RuntimeError("secret"), {}) is None


def test_sentence_names_the_fields_for_people() -> None:
    assert Invalid.field("slug", "Taken.").sentence == "The request is not valid. slug: Taken."
    assert ApiError("Gone.").sentence == "Gone."


# Over HTTP


def test_unknown_path_is_404_in_json(client: Client) -> None:
    # No redirect to or from a trailing slash (EDGEGAP.md R13).
    for path in ("/v1/nothing", "/nothing", "/v1/locations/"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"


def test_wrong_method_is_405_in_json(api: APIClient) -> None:
    response = api.delete("/v1/ip")
    assert response.status_code == 405
    assert response.json()["code"] == "method_not_allowed"


def test_wrong_media_type_is_415_in_json(api: APIClient) -> None:
    response = api.post("/v1/ips/lookup", data="a=b", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"
    assert "application/json" in response.json()["message"]


def test_media_type_that_we_do_not_speak_is_406_in_json(api: APIClient) -> None:
    response = api.get("/v1/ip", HTTP_ACCEPT="text/html")
    assert response.status_code == 406
    assert response.json()["code"] == "not_acceptable"


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 5000, b'{"a": "\\ud800"}'])
def test_bad_json_is_400(api: APIClient, body: bytes) -> None:
    response = api.post("/v1/ips/lookup", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["code"] == "malformed"


def test_unknown_host_is_400_in_json_and_points_to_the_setting(client: Client) -> None:
    response = client.get("/admin/login/", HTTP_HOST="evil.example")
    assert response.status_code == 400
    response = client.get("/docs", HTTP_HOST="evil.example")
    assert (response.status_code, response.json()["code"]) == (400, "host_unknown")
    assert "ALLOWED_HOSTS" in response.json()["message"]


@pytest.mark.django_db
def test_crash_is_500_in_json_without_a_traceback(monkeypatch: pytest.MonkeyPatch, api: APIClient) -> None:
    def crash(request: object) -> str:
        raise RuntimeError("with a secret in it")

    monkeypatch.setattr("relaymgr.nodes.locations.apis.client_address", crash)
    api.raise_request_exception = False
    response = api.get("/v1/ip")
    assert response.status_code == 500
    assert response.json() == {"message": "Something went wrong.", "code": "error", "details": {}}


def test_admin_keeps_its_pages(client: Client) -> None:
    response = client.get("/admin/nothing")
    assert response.status_code in (302, 404)
    assert "json" not in response.get("Content-Type", "")


def test_a_value_that_a_column_cannot_hold_is_400() -> None:
    """Of DRF's views here, of others, such as the console's, by `handler500`."""
    response = exception_handler(DataError("value too long for type character varying(50)"), {})
    assert response is not None
    assert (response.status_code, response.data["code"]) == (400, "invalid")
    for path, kind in (("/v1/anything", "application/json"), ("/admin/", "text/html")):
        try:
            raise DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        except DataError:
            answer = server_error(RequestFactory().get(path))
        assert answer.status_code == 400
        assert answer["Content-Type"].startswith(kind)
