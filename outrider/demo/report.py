"""``report.html``: one file that needs nothing else."""

import base64
import html
from dataclasses import dataclass, field

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#2c3038;max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.7em;margin-bottom:.1em} h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #e3e6ea}
table{border-collapse:collapse;margin:.6em 0} td,th{padding:.28em .9em .28em 0;text-align:right}
td:first-child,th:first-child{text-align:left} th{color:#6b7280;font-weight:500;border-bottom:1px solid #d5d9df}
img,video{width:100%;border:1px solid #e3e6ea;border-radius:4px} p.note{color:#6b7280;margin:.2em 0 .8em}
.cards{display:flex;flex-wrap:wrap;gap:.8em;margin:1em 0} .card{background:#f5f6f8;border-radius:6px;padding:.6em 1em}
.card b{display:block;font-size:1.35em} .good b{color:#2c7a47} .bad b{color:#b3342d}
"""


@dataclass
class Report:
    """Collects the parts of the page, top to bottom."""

    title: str
    lead: str
    _parts: list[str] = field(default_factory=list)

    def cards(self, cards: list[tuple[str, str, bool | None]]) -> None:
        """A row of figures: (value, what it is, good or bad or neither)."""
        cells = []
        for value, label, good in cards:
            tone = "" if good is None else " good" if good else " bad"
            cells.append(f'<div class="card{tone}"><b>{html.escape(value)}</b>{html.escape(label)}</div>')
        self._parts.append(f'<div class="cards">{"".join(cells)}</div>')

    def section(self, title: str, note: str = "") -> None:
        """A heading with a line below."""
        self._parts.append(f"<h2>{html.escape(title)}</h2>")
        if note:
            self._parts.append(f'<p class="note">{html.escape(note)}</p>')

    def table(self, head: list[str], rows: list[list[str]]) -> None:
        """A table; the first column is its label."""
        lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
        lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        self._parts.append(f"<table>{''.join(lines)}</table>")

    def picture(self, png: bytes, about: str) -> None:
        """A PNG, inside the page."""
        data = base64.b64encode(png).decode()
        self._parts.append(f'<img alt="{html.escape(about)}" src="data:image/png;base64,{data}">')

    def film(self, mp4: bytes) -> None:
        """An MP4, inside the page."""
        data = base64.b64encode(mp4).decode()
        self._parts.append(f'<video controls loop muted autoplay src="data:video/mp4;base64,{data}"></video>')

    def page(self) -> str:
        """The HTML."""
        head = f"<title>{html.escape(self.title)}</title><style>{STYLE}</style>"
        body = f"<h1>{html.escape(self.title)}</h1><p>{html.escape(self.lead)}</p>" + "\n".join(self._parts)
        return f'<!doctype html><html lang="en"><meta charset="utf-8">{head}<body>{body}</body></html>\n'
