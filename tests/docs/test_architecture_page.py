"""docs/architecture.md names files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
FILES = sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_.]+)+\.(?:py|c))`", PAGE)))


def test_the_walks_name_files() -> None:
    assert len(FILES) > 35


@pytest.mark.parametrize("name", FILES)
def test_file_exists(name: str) -> None:
    assert (ROOT / name).is_file()
