import inspect

import pytest

from causeway_client.protocol import errors
from causeway_client.protocol.errors import ADVICE, ConnectionFailed, ProtocolError, Refusal, refusal_error


@pytest.mark.parametrize("code", Refusal)
def test_every_refusal_is_a_typed_error_with_its_name_and_advice(code: Refusal) -> None:
    error = refusal_error(code, code.name.lower())
    assert (error.code, error.advice) == (code.name.lower(), ADVICE[code])
    assert str(error) == f"{error.code}: {error.advice}"


def test_an_unknown_refusal_keeps_its_number() -> None:
    assert refusal_error(200, "code_200").code == "code_200"


def test_every_exception_of_the_module_is_a_protocol_error() -> None:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]
    assert len(found) > 10
    assert all(issubclass(each, ProtocolError) for each in found)


def test_errors_that_end_a_connection_are_distinguished_from_wrong_arguments() -> None:
    assert issubclass(errors.ConnectTimeout, ConnectionFailed)
    assert issubclass(errors.InvalidTarget, ValueError) and not issubclass(errors.InvalidTarget, ConnectionFailed)
    assert issubclass(errors.PayloadTooLarge, ValueError)
