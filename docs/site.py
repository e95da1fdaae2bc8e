"""Ships mermaid.js with the site, for the theme would load it from another host; only pages with a picture get it.

And says which pages the search shows first: those for people who run the bridge, before those about its making.
"""

from importlib.metadata import distribution
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

SCRIPT = "assets/javascripts/mermaid.min.js"
BOOSTS = {
    "decisions/": 0.1,
    "mutants": 0.1,
    "vendor-tests": 0.1,
    "security-tests": 0.1,
    "add-a-flow": 0.3,
    "troubleshooting": 4.0,
    "runbook/": 2.0,
}
"""By how the path of a page begins: how much more a match in it counts than in another page."""
WIDE = frozenset({"senders.md"})
"""Pages whose tables need the room of the list of headings."""


def on_files(site: Files, config: MkDocsConfig) -> Files:
    code = Path(str(distribution("artoo-mermaid").locate_file("artoo_mermaid/assets/mermaid.min.js")))
    site.append(File.generated(config, SCRIPT, abs_src_path=str(code)))
    return site


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    boosts = (boost for path, boost in BOOSTS.items() if page.file.src_uri.startswith(path))
    page.meta["search"] = {"boost": next(boosts, 1.0)}
    page.meta["hide"] = ["toc"] if page.file.src_uri in WIDE else []
    return markdown


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    if 'class="mermaid"' not in output:
        return output
    return output.replace("</head>", f'<script src="{get_relative_url(SCRIPT, page.url)}"></script></head>')
