import pytest

from web.admin.wording import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 nodes"), (1, "1 node"), (1.5, "1.5 nodes"), (2, "2 nodes"), (1200, "1,200 nodes")]
)
def test_number_and_plural(count: float, text: str) -> None:
    assert counted(count, "node") == text
