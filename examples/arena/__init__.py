"""Arena: a small real game over Causeway. Run it with `python -m examples.arena`."""
