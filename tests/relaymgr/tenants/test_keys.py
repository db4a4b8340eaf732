import hashlib

import pytest

from relaymgr.tenants.keys import hashes_match, new_key, split_key


def test_key_is_256_random_bits_and_only_its_hash_is_kept() -> None:
    new = new_key()
    word, prefix, secret = new.plain.split("_", 2)
    assert (word, prefix) == ("cw", new.prefix)
    assert len(secret) == 43  # 32 bytes in base64url
    assert new.secret_hash == hashlib.sha256(secret.encode()).hexdigest()


def test_no_two_keys_are_alike() -> None:
    assert len({new_key().plain for _ in range(1000)}) == 1000


def test_split_finds_prefix_and_hash_again() -> None:
    new = new_key()
    assert split_key(new.plain) == (new.prefix, new.secret_hash)


@pytest.mark.parametrize(
    "text",
    ["", "cw_", "cw__", "cw_123456789abc_short", "cw_123456789ABC_" + "x" * 43, "xx_123456789abc_" + "x" * 43],
)
def test_what_has_not_the_form_is_none(text: str) -> None:
    assert split_key(text) is None
    assert split_key(new_key().plain + "\n") is None


def test_comparison() -> None:
    assert hashes_match("abc", "abc")
    assert not hashes_match("abc", "abd")


def test_plain_key_is_not_in_the_repr() -> None:
    new = new_key()
    assert new.plain not in repr(new) and new.secret_hash not in repr(new)
