"""For mkdocs: the wire's standard, kept beside its code, is a page; links out of docs/ lead to copied files."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = ROOT / "transports/protocol/PROTOCOL.md"
SHIM = "https://unpkg.com/iframe-worker/shim"
VENDORED = "assets/vendor/iframe-worker/shim.js"
OUTSIDE = re.compile(r"(\]\()\.\./([^)#\s]+)(\))")


def on_files(files: Files, *, config: Any) -> Files:
    files.append(File.generated(config, "PROTOCOL.md", abs_src_path=str(PROTOCOL)))
    for target in sorted(_targets(Path(config.docs_dir))):
        for path in [target] if target.is_file() else sorted(target.rglob("*.json")):
            files.append(File.generated(config, _source(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    def within(match: re.Match[str]) -> str:
        path = (ROOT / match[2]).resolve()
        if path == PROTOCOL:
            return f"{match[1]}PROTOCOL.md{match[3]}"
        # A folder has no page of its own: its first file stands for it.
        shown = path if path.is_file() else min(path.rglob("*.json"))
        return f"{match[1]}{posixpath.relpath(_source(shown), posixpath.dirname(page.file.src_uri))}{match[3]}"

    return OUTSIDE.sub(within, markdown)


def on_post_page(output: str, *, page: Page, config: Any) -> str:
    """The theme takes the search's helper for file:// from elsewhere; ours is vendored."""
    return output.replace(SHIM, posixpath.relpath(VENDORED, posixpath.dirname(page.url)))


def on_post_template(output: str, *, template_name: str, config: Any) -> str:
    return output.replace(SHIM, f"/{VENDORED}")  # 404.html is served at any depth


def _targets(docs: Path) -> set[Path]:
    found = {(ROOT / match[2]).resolve() for page in docs.rglob("*.md") for match in OUTSIDE.finditer(page.read_text())}
    return {path for path in found if path.exists() and path != PROTOCOL}


def _source(path: Path) -> str:
    return f"files/{path.relative_to(ROOT).as_posix()}"
