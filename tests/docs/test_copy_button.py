"""The documents' copy button takes commands, not prompts and what the commands print."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from tests.flows.browser import running_browser

ROOT = Path(__file__).parents[2]
BLOCK = "```console\n$ first --flag\nprinted\n$ second\nprinted too\n```\n"

pytestmark = pytest.mark.browser


class _Loader(yaml.SafeLoader):
    """Ours has no tags of Python's; emojis' may come."""


def test_copied_are_the_commands_alone(tmp_path: Path) -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    page = tmp_path / "docs" / "index.md"
    for style in config["extra_css"]:
        copy = page.parent / style
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / "docs" / style).read_text())
    page.write_text(BLOCK)
    for name in ("nav", "hooks"):
        del config[name]
    config |= {"docs_dir": "docs", "site_dir": "site", "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.dump(config))
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "-q"], cwd=tmp_path, check=True)

    with running_browser() as browser:
        context = browser.new_context()
        opened = context.new_page()
        opened.goto((tmp_path / "site" / "index.html").as_uri())
        # What the button would write, without the rights of a clipboard.
        opened.evaluate(
            "document.execCommand = () => { window.copied = getSelection().toString() || "
            "document.activeElement.value; return true; }"
        )
        button = opened.locator("[data-clipboard-target], .md-clipboard, .md-code__button[data-md-type=copy]").first
        expect(button).to_be_attached(timeout=10_000)
        button.click(force=True)
        opened.wait_for_function("window.copied !== undefined")
        copied = opened.evaluate("window.copied")
        context.close()
    assert [line for line in copied.splitlines() if line] == ["first --flag", "second"]
