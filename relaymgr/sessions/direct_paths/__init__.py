"""Paths between two players without the relay: who may have them, the keys for them, and what nodes report of them."""
