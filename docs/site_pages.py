"""Pages outside docs/, and the notebook, as pages of the site: a hook of mkdocs.

mkdocs only sees Markdown in docs/. The targets of links are rewritten here, so that they
lead to the same pages in the repository and on the site. Pieces of code are marked.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")
NOTEBOOK = "tutorials/masks_in_python"
LINK = re.compile(r"(?<=\]\()[^)\s#:]+")
CODE = re.compile(r"(?<!</span><code>)(?<=<code>)[^<]+(?=</code>)")  # not in blocks
KEPT = 20  # characters of code that are not broken at all, such as `[n h w]`
FITS = 34  # on a line of a phone


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and the notebook."""
    notebook = Path(config.docs_dir, f"{NOTEBOOK}.ipynb")
    files.append(File.generated(config, f"{NOTEBOOK}.md", content=as_page(notebook)))
    root = Path(config.docs_dir).parent
    for name in OUTSIDE:
        content = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=content))
    return files


def as_page(notebook: Path) -> str:
    """Return a notebook without outputs as Markdown, with a link to download it."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        parts.append(f"```python\n{text}\n```" if is_code else text)
    parts.insert(1, f'<a href="{notebook.name}">Download this page as a notebook.</a>')
    return "\n\n".join(parts)


def on_page_markdown(
    markdown: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Rewrite the links of a page; mkdocs reports those that lead nowhere."""
    source = page.file.src_uri

    def on_site(link: re.Match) -> str:
        folder = posixpath.dirname(source if source in OUTSIDE else f"docs/{source}")
        target = posixpath.normpath(posixpath.join(folder, link[0]))
        uri = target.removeprefix("docs/").replace(
            f"{NOTEBOOK}.ipynb", f"{NOTEBOOK}.md"
        )
        if files.get_file_from_path(uri) is None:
            return link[0]
        return posixpath.relpath(uri, posixpath.dirname(source))

    return LINK.sub(on_site, markdown)


def on_page_content(
    html: str, *, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Mark the pieces of code that docs/site.css does not break."""

    def mark(piece: re.Match) -> str:
        if len(piece[0]) > FITS:
            return piece[0].replace("/", "/<wbr>")
        return f"<span>{piece[0]}</span>"

    def mark_all(code: re.Match) -> str:
        return re.sub(r".+" if len(code[0]) <= KEPT else r"\S+", mark, code[0])

    return CODE.sub(mark_all, html)
