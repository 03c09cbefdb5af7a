"""What the site adds to the pages in docs/: pages that lie elsewhere in the repository, and links to its other files.

In the repository, pages link to files by relative paths, so that they can be read as they are. The site has only
the pages: a link to another file becomes its path, or a link to the repository where mkdocs.yml sets `repo_url`.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ELSEWHERE = {
    "CONTRIBUTING.md": "development/contributing.md",
    "benchmarks/README.md": "development/benchmarks.md",
    "CHANGELOG.md": "development/changelog.md",
}
"""Pages outside docs/, and where the site has them."""
SOURCES = {page: source for source, page in ELSEWHERE.items()}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    root = Path(config.config_file_path).parent
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(root / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links to files of the repository as the site needs them."""
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def on_site(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        there = ELSEWHERE.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(there):
            return f"[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return f"`{path}`" if text.strip("`").endswith(posixpath.basename(path)) else f"{text} (`{path}`)"

    return LINK.sub(on_site, markdown)
