from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response

from web.fields.collections import BoundedList
from web.http.input_warnings import (
    MAX_NAME,
    MAX_WARNINGS,
    InputWarning,
    InputWarningsMiddleware,
    RequestSerializer,
    unknown_names,
    warn,
)


class Player(RequestSerializer):
    player_id = serializers.CharField(required=False)


class Form(RequestSerializer):
    topology = serializers.CharField(required=False)
    users = BoundedList(child=Player(), max_length=4, required=False)


def warnings_of(body: Any, query: str = "", status: int = 200) -> Any:
    """The warnings that the response of a view that reads this body contains."""

    def view(request: Any) -> HttpResponse:
        Form(data=body).is_valid(raise_exception=True)
        return middleware.process_template_response(request, Response({"made": True}, status))

    middleware = InputWarningsMiddleware(view)
    response: Any = middleware(RequestFactory().post(f"/{query}"))
    return {each["field"]: each["code"] for each in response.data.get("warnings", [])}


def test_unknown_fields_are_listed_with_their_paths() -> None:
    body = {"topology": "star", "topolgy": "mesh", "users": [{}, {"player": "ada"}]}
    assert warnings_of(body) == {"topolgy": "unknown_field", "users[1].player": "unknown_field"}
    assert warnings_of({"topology": "star"}) == {}


def test_a_query_parameter_of_an_operation_with_a_body_is_listed() -> None:
    assert warnings_of({}, "?limit=4&strict=0") == {"limit": "unknown_parameter"}


def test_an_error_has_no_warnings() -> None:
    assert warnings_of({"topolgy": "mesh"}, status=400) == {}


@pytest.mark.parametrize("query", ["?strict=1", "?strict=yes"])
def test_a_strict_request_is_refused(query: str) -> None:
    with pytest.raises(ValidationError) as raised:
        warnings_of({"topolgy": "mesh"}, query)
    assert raised.value.get_codes() == {"topolgy": ["unknown_field"]}


def test_number_and_length_of_warnings_are_bounded() -> None:
    found = warnings_of({f"{index}{'x' * 500}": 1 for index in range(MAX_WARNINGS + 5)})
    assert len(found) == MAX_WARNINGS and {len(field) for field in found} == {MAX_NAME}


def test_one_request_gets_no_warning_of_another() -> None:
    assert warnings_of({"topolgy": "mesh"}) and warnings_of({}) == {}
    warnings_of({}, "?strict=1")
    warn([InputWarning("a", "b", "c")])  # outside of a request: neither refused nor stored for the next one
    assert warnings_of({}) == {}


def test_a_similar_name_is_suggested_without_regard_to_case() -> None:
    known = frozenset({"Frankfurt", "Tokyo"})
    (warning,) = unknown_names(["FRANKFRUT", "Tokyo"], known, "latencies.{name}", "location", "unknown_location")
    assert (warning.field, warning.code) == ("latencies.FRANKFRUT", "unknown_location")
    assert warning.message.endswith("Did you mean Frankfurt?")
