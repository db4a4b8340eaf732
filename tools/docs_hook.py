"""The hook of mkdocs: the pages of `transports/protocol/` become part of the site, and links to files outside docs/
lead to copies of these files."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL_PAGES = sorted((ROOT / "transports/protocol").glob("*.md"))
SHIM = "https://unpkg.com/iframe-worker/shim"
VENDORED = "assets/vendor/iframe-worker/shim.js"
OUTSIDE = re.compile(r"(\]\()\.\./([^)#\s]+)(#[^)\s]*)?(\))")
FROM_PROTOCOL = re.compile(r"(\]\()\.\./\.\./docs/([^)#\s]+)(#[^)\s]*)?(\))")


def on_files(files: Files, *, config: Any) -> Files:
    for page in PROTOCOL_PAGES:
        files.append(File.generated(config, page.name, abs_src_path=str(page)))
    for target in sorted(_targets(Path(config.docs_dir))):
        for path in [target] if target.is_file() else sorted(target.rglob("*.json")):
            files.append(File.generated(config, _source(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    def within(match: re.Match[str]) -> str:
        if "/" in page.file.src_uri:  # from a folder of docs, "../" leads to another page
            return match[0]
        before, target, fragment, after = match.groups()
        path = (ROOT / target).resolve()
        if path in PROTOCOL_PAGES:
            return f"{before}{path.name}{fragment or ''}{after}"
        # A folder has no page of its own, so a link to it leads to its first file.
        shown = path if path.is_file() else min(path.rglob("*.json"))
        return f"{before}{posixpath.relpath(_source(shown), posixpath.dirname(page.file.src_uri))}{after}"

    if page.file.src_uri in {path.name for path in PROTOCOL_PAGES}:
        return FROM_PROTOCOL.sub(lambda match: f"{match[1]}{match[2]}{match[3] or ''}{match[4]}", markdown)
    return OUTSIDE.sub(within, markdown)


def on_post_page(output: str, *, page: Page, config: Any) -> str:
    """Replaces the script that the theme loads from another host, for searching a site at file://, by the vendored
    one."""
    return output.replace(SHIM, posixpath.relpath(VENDORED, posixpath.dirname(page.url)))


def on_post_template(output: str, *, template_name: str, config: Any) -> str:
    return output.replace(SHIM, f"/{VENDORED}")  # 404.html is served at any depth


def _targets(docs: Path) -> set[Path]:
    found = {(ROOT / match[2]).resolve() for page in docs.rglob("*.md") for match in OUTSIDE.finditer(page.read_text())}
    return {path for path in found if path.exists() and path not in PROTOCOL_PAGES}


def _source(path: Path) -> str:
    return f"files/{path.relative_to(ROOT).as_posix()}"
