"""Builds a self-contained page with Bokeh's charts, which opens from disk, offline.

Only the page's own scripts can run in it: its security policy blocks scripts in the data.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from bokeh.embed import components
from bokeh.resources import Resources

from .drawing import markup
from .plots import THEME, Chart

STYLE = """\
:root { color-scheme: light dark; --soft: #8882; --line: #8886;
        --valid: #2E8B57; --invalid: #C8322B; --unknown: #B36B00; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1400px;
       padding: 16px; background: Canvas; color: CanvasText; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 28px 0 6px; }
p { margin: 6px 0; overflow-wrap: anywhere; }
.why { border-left: 4px solid var(--invalid); padding-left: 10px; }
.note { opacity: .75; font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:;
 style-src 'unsafe-inline'; script-src {hashes}; base-uri 'none'; form-action 'none'">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
{style}</style></head><body>
{body}
<noscript><p class="why">The charts need JavaScript.</p></noscript>
{scripts}
</body></html>
"""


def embed(charts: Sequence[Chart]) -> tuple[list[str], str]:
    """Returns a section for each chart, and the script that draws them ("" without charts)."""
    if not charts:
        return [], ""
    script, divs = components([chart.plot for chart in charts], wrap_script=False, theme=THEME)
    sections = [section(chart.name, chart.title, chart.words + div) for chart, div in
                zip(charts, divs, strict=True)]  # fmt: skip
    return sections, script


def section(name: str, title: str, content: str) -> str:
    """Returns a section of a page. `content` is markup."""
    return f'<section id="{name}"><h2>{markup(title)}</h2>\n{content}\n</section>'


def page(title: str, style: str, body: str, *scripts: str) -> str:
    """Returns the page. `body` is markup. With any scripts, the page also contains Bokeh's."""
    library = Resources(mode="inline", components=["bokeh", "bokeh-gl"]).js_raw if scripts else ()
    texts = [*library, *scripts]
    # Only scripts with these hashes can run, even if some data were not escaped.
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return PAGE.format(
        title=markup(title),
        hashes=hashes or "'none'",
        style=STYLE + style,
        body=body,
        scripts="\n".join(f"<script>{text}</script>" for text in texts),
    )
