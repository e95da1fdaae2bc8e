"""Ships mermaid.js with the site, for the theme would load it from another host; only pages with a picture get it."""

from importlib.metadata import distribution
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

SCRIPT = "assets/javascripts/mermaid.min.js"


def on_files(site: Files, config: MkDocsConfig) -> Files:
    code = Path(str(distribution("artoo-mermaid").locate_file("artoo_mermaid/assets/mermaid.min.js")))
    site.append(File.generated(config, SCRIPT, abs_src_path=str(code)))
    return site


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    if 'class="mermaid"' not in output:
        return output
    return output.replace("</head>", f'<script src="{get_relative_url(SCRIPT, page.url)}"></script></head>')
