"""A card as one HTML page, to look at in a browser: no script, nothing loaded, figures inside."""

import base64
import html
import re
from collections.abc import Callable, Sequence
from typing import Any

FIGURE_PATTERN = re.compile(r"figures/([a-z0-9_]+)\.png")
CONTENT_SECURITY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #24292f; background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1, h2 { border-bottom: 1px solid #d0d7de; padding-bottom: .3rem; }
h2 { margin-top: 2.2rem; } h3 { margin-top: 1.8rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; display: block; overflow-x: auto; }
th, td { border: 1px solid #d0d7de; padding: .3rem .7rem; vertical-align: top; }
th { background: #f6f8fa; text-align: left; }
code { background: #f6f8fa; padding: .1rem .3rem; border-radius: 4px; font-size: .88em; }
pre { background: #f6f8fa; padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
pre code { padding: 0; background: none; }
img { max-width: 100%; } blockquote { border-left: .3rem solid #cf222e; background: #fff5f5; margin: 1rem 0; padding: .4rem 1rem; }
em { color: #57606a; } .header { color: #57606a; font-size: .85rem; }
"""


def render_page(text: str, read_figure: Callable[[str], bytes]) -> str:
    """Render a card as HTML.

    Args:
        text: the card: YAML front matter between lines of three dashes, then Markdown. HTML in it is shown as text.
        read_figure: gives the PNG bytes of a figure by its name.

    Returns:
        One page; equal cards and figures give equal pages.
    """
    from markdown_it import MarkdownIt

    header, body = split_front_matter(text)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(renderer: Any, tokens: Sequence[Any], place: int, options: Any, env: Any) -> str:
        token = tokens[place]
        match = FIGURE_PATTERN.fullmatch(str(token.attrs.get("src", "")))
        alt = html.escape(token.content, quote=True)
        if match is None:
            return f"[{alt}]"
        data = base64.b64encode(read_figure(match[1])).decode()
        return f'<img alt="{alt}" src="data:image/png;base64,{data}">'

    markdown.add_render_rule("image", image)
    title = next((line.removeprefix("# ") for line in body.splitlines() if line.startswith("# ")), "Card")
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY}">\n<meta name="viewport" content="width=device-width">\n'
            f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{markdown.render(body)}"
            f'<h2>What the Hub reads</h2>\n<pre class="header"><code>{html.escape(header)}</code></pre>\n</body>\n</html>\n')


def split_front_matter(text: str) -> tuple[str, str]:
    """The YAML between the first two lines of three dashes, and what follows; no YAML when the text does not begin so."""
    if text.startswith("---\n") and (end := text.find("\n---\n", 3)) >= 0:
        return text[4:end + 1], text[end + 5:]
    return "", text
