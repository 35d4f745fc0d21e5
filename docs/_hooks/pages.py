"""What the site has beside the pages in docs/: files from elsewhere in the checkout, formulas, tables of flags.

Pages link to each other as they lie in the checkout, so that the links work there too. Files outside of docs/ that are
pages become pages, other ones that a page links to are copied into the site.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml import converter
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import settings_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Pages of the site that lie elsewhere.
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
# Where other files lie in the site.
COPIES = "files"

_LINK = re.compile(r"(!?\[[^\]]*\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"^( *)(```+).*?^\1\2\s*$", re.MULTILINE | re.DOTALL)
_DISPLAYED = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<![\\$`])\$(?!\s)([^$\n`]+?)(?<!\s)\$(?![\d$`])")
# Not those that another attribute follows, and none that a phone has no room for.
_FLAG = re.compile(r"(?<!`)(`--\w[\w.=/-]{0,32}`)(?![`{])")
_COMMENT = re.compile(r"^<!-- (?:in tests|not run|setup).*?-->\n", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from elsewhere and the files that pages link to."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    linked: set[Path] = set()
    for file in list(files.documentation_pages()):
        source = source_of(file.src_uri)
        for found in _LINK.finditer((ROOT / source).read_text(encoding="utf-8")):
            target = Path(os.path.normpath(Path(source).parent / found[2]))
            if _is_elsewhere(target) and (ROOT / target).is_file():
                linked.add(target)
    for target in sorted(linked):
        files.append(File.generated(config, f"{COPIES}/{target.as_posix()}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites links, formulas and tables of one page."""
    source = source_of(page.file.src_uri)
    text = _COMMENT.sub("", markdown)
    text = text.replace("<!-- table of settings -->", settings_table.of_settings())
    text = text.replace("<!-- table of columns -->", settings_table.of_columns())
    return _outside_of_fences(text, lambda part: _flags(_formulas(_links(part, source, page.file.src_uri))))


def source_of(name: str) -> str:
    """Where a page lies in the checkout, by its name in the site."""
    elsewhere = {page: source for source, page in PAGES.items()}
    return elsewhere.get(name, f"docs/{name}")


def _is_elsewhere(target: Path) -> bool:
    return not target.is_relative_to("docs") and target.as_posix() not in PAGES


def _links(text: str, source: str, name: str) -> str:
    """Links of the checkout as links of the site."""

    def replace(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(Path(source).parent / found[2]))
        place = PAGES.get(target.as_posix())
        if place is None:
            inside = target.is_relative_to("docs")
            place = target.relative_to("docs").as_posix() if inside else f"{COPIES}/{target.as_posix()}"
        relative = os.path.relpath(place, Path(name).parent)
        return f"{found[1]}{relative}{found[3] or ''}{found[4]}"

    return _LINK.sub(replace, text)


def _flags(text: str) -> str:
    """Flags that stay in one line, where browsers would break them behind their hyphens."""
    return _FLAG.sub(r"\1{.flag}", text)


def _formulas(text: str) -> str:
    """TeX between dollars as MathML, which browsers draw by themselves."""
    text = _DISPLAYED.sub(lambda found: converter.convert(found[1].replace("\n", " "), display="block"), text)
    # In a span: a line that begins with <math> would be a paragraph of its own.
    return _INLINE.sub(lambda found: f"<span>{converter.convert(found[1])}</span>", text)


def _outside_of_fences(text: str, change: Any) -> str:
    parts, end = [], 0
    for found in _FENCE.finditer(text):
        parts += [change(text[end : found.start()]), found[0]]
        end = found.end()
    return "".join([*parts, change(text[end:])])
