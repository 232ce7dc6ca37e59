"""The inspection report as a page that stands alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment

if TYPE_CHECKING:
    from weathermill.fields.inspection import InspectionReport

STYLE = """
:root{color-scheme:light dark;--line:#8884;--error:#c0392b;--warning:#b9770e;--info:#2471a3}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
.tag{display:inline-block;min-width:4.5rem;font-weight:600}
.error{color:var(--error)}.warning{color:var(--warning)}.info{color:var(--info)}
.remedy{opacity:.75}.bad{color:var(--error);font-weight:600}
"""

_TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Inspection report</title><style>{{ style }}</style></head>
<body>
<h1>Inspection report</h1>
<p>{{ verdict }}</p>
<h2>Findings</h2>
{% if findings %}<table>
{% for f in findings %}<tr><td><span class="tag {{ f.severity }}">{{ f.severity }}</span></td>
<td><b>{{ f.subject }}</b></td><td>{{ f.message }}{% if f.remedy %}<br><span class="remedy">{{ f.remedy }}</span>
{% endif %}</td></tr>
{% endfor %}</table>{% else %}<p>None.</p>{% endif %}
<h2>What the data is</h2>
<table>{% for key, value in facts %}<tr><th>{{ key }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<h2>{% if whole %}Variables, from all steps (means from a sample){% else %}Variables, from a sample{% endif %}</h2>
<table><tr><th>Variable</th><th class="n">Level (hPa)</th><th>Units</th><th class="n">Minimum</th>
<th class="n">Mean</th><th class="n">Maximum</th><th class="n">Missing</th><th class="n">Beyond limits</th></tr>
{% for v in variables %}<tr><td>{{ v.variable }}</td><td class="n">{{ v.level | number }}</td>
<td>{{ v.units }}</td><td class="n">{{ v.minimum | number }}</td><td class="n">{{ v.mean | number }}</td>
<td class="n">{{ v.maximum | number }}</td>
<td class="n{% if v.missing_share %} bad{% endif %}">{{ v.missing_share | percent }}</td>
<td class="n{% if v.outside_share %} bad{% endif %}">{{ v.outside_share | percent }}</td></tr>
{% endfor %}</table>
</body></html>
"""


def number(value: float | None) -> str:
    """Return a number to five digits, or a dash."""
    return "–" if value is None else f"{value:.5g}"


def percent(share: float) -> str:
    """Return a share in per cent, empty for none."""
    return f"{100 * share:.3g} %" if share else ""


def environment() -> Environment:
    """Return a template environment that escapes everything."""
    templates = Environment(autoescape=True, trim_blocks=True)
    templates.filters |= {"number": number, "percent": percent}
    return templates


def _flattened(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        label = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            rows.extend(_flattened(value, f"{label}: "))
        elif key == "shape":
            rows.append((label, " x ".join(map(str, value))))
        elif isinstance(value, list):
            texts = [
                ", ".join(f"{k} {v}" for k, v in item.items()) if isinstance(item, dict) else str(item)
                for item in value
            ]
            shown = "; ".join(texts[:20]) + (f"; and {len(texts) - 20} more" if len(texts) > 20 else "")
            rows.append((label, shown or "none"))
        else:
            rows.append((label, str(value)))
    return rows


def render(report: InspectionReport) -> str:
    """Return the page."""
    errors, warnings = len(report.errors), len(report.warnings)
    verdict = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}. " + (
        "Errors stop the run." if errors else "Nothing that would stop a run."
    )
    return (
        environment()
        .from_string(_TEMPLATE)
        .render(
            style=STYLE,
            verdict=verdict,
            findings=report.findings,
            facts=_flattened(report.facts),
            variables=report.variables,
            whole="values" in report.facts,
        )
    )
