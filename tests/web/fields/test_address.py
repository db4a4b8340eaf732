import pytest
from rest_framework.exceptions import ValidationError

from web.fields.address import AddressField


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_canonical_form(given: str, address: str) -> None:
    assert AddressField().run_validation(given) == address


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("0.0.0.0", "not_a_host"),
        ("::", "not_a_host"),
        ("224.0.0.1", "not_a_host"),
        ("::ffff:224.0.0.1", "not_a_host"),
        ("255.255.255.255", "not_a_host"),
        ("169.254.1.1", "not_a_host"),
        ("fe80::1", "not_a_host"),
        ("192.0.2.0/24", "invalid"),
        ("192.0.2.1:80", "invalid"),
        ("localhost", "invalid"),
    ],
)
def test_what_is_not_the_address_of_one_host(given: str, code: str) -> None:
    with pytest.raises(ValidationError) as raised:
        AddressField().run_validation(given)
    assert raised.value.get_codes() == [code]
