from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from weathermill.errors import UnwritableOutputError
from weathermill.verification.labels import number
from weathermill.verification.model_card import (
    CardFigure,
    limits_from_scores,
    render_model_card,
    write_model_card,
)
from weathermill.verification.plots import skill_curves
from weathermill.verification.significance import confidence_intervals

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def card(scores, **changes):
    given = {
        "title": "A network",
        "simulated": True,
        "data": {"sources": ["a.nc"], "periods": {"train": "2000", "test": "2001"}},
        "grid": {"shape": "19 x 24"},
        "channels": [
            {"name": "geopotential_500", "role": "prognostic", "units": "m2 s-2", "mean": 5e4, "std": 3e3},
            {"name": "2m_temperature", "role": "prognostic", "units": "K", "mean": 280.0, "std": 15.0},
        ],
        "normalisation": "Less the mean, over the standard deviation.",
        "model": {"parameters": 7_742_849},
        "training": {"epochs": 3, "resumed": False},
        "provenance": {"tensors": "ab" * 32},
        "versions": {"torch": "2"},
        **changes,
    }
    return render_model_card(scores, **given)


class Outline(HTMLParser):
    """Tags that must close, references that leave the page, and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.outside, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (
                name in ("src", "href") and not value.startswith(("data:image/png", "#"))
            ):
                self.outside.append((tag, name, value))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(html):
    outline = Outline()
    outline.feed(html)
    assert not outline.open
    return outline


def test_the_card_is_whole_and_needs_no_network(scored):
    scores, *_ = scored()
    intervals = confidence_intervals(scores, n_resamples=50)
    html = card(
        scores,
        intervals=intervals,
        figures=[CardFigure("skill", "RMSE by lead time", skill_curves(scores, intervals=intervals))],
        limits=["One sentence."],
        ledger={"parameters": "30 MB"},
    )
    outline = parse(html)
    assert outline.outside == []
    assert "script" not in outline.tags
    assert outline.tags.count("img") == 1
    text = re.sub(r"\s+", " ", " ".join(outline.text))
    assert "7 742 849" in text
    assert "periods: train" in text
    assert "resumed no" in text
    where = {"source": "forecast", "channel": "2m_temperature", "region": "global", "lead_time": 72}
    rmse, lower = float(scores["rmse"].sel(where)), float(intervals["rmse_lower"].sel(where))
    assert f"{number(rmse)} [{number(lower)}," in text
    assert "95 % intervals" in text
    assert "verified from 24 initial times only" in text
    assert "Tropics" in text


@pytest.mark.parametrize(
    ("simulated", "said"),
    [(True, "SIMULATED DATA"), (None, "ORIGIN NOT STATED"), (False, "real atmospheric data")],
)
def test_the_origin_of_the_data_is_said_at_the_top(scored, simulated, said):
    scores, *_ = scored()
    html = card(scores, simulated=simulated)
    assert said in html[: html.index("Contents")]
    assert ("must not be used to forecast real weather" in html) == (simulated is not False)


def test_what_files_say_cannot_act(scored):
    scores, *_ = scored()
    html = card(
        scores,
        title=HOSTILE,
        data={HOSTILE: HOSTILE, "sources": [HOSTILE]},
        channels=[{"name": HOSTILE, "units": HOSTILE}],
        normalisation=HOSTILE,
        figures=[CardFigure("maps", HOSTILE, b"\x89PNG")],
        simulated=False,
    )
    outline = parse(html)
    assert "script" not in outline.tags
    assert outline.outside == []
    assert outline.tags.count("img") == 1


def test_limits_follow_from_the_scores(scored):
    scores, *_ = scored(noise=0.8)
    scores.attrs["climatology"] = "mean; the training period is too short for an annual cycle"
    scores["rmse"].loc[{"source": "forecast", "lead_time": 72, "region": "tropics"}] = np.nan
    limits = " ".join(limits_from_scores(scores, simulated=False))
    for said in (
        "DJF only",
        "lags the season",
        "From 72 h on, the mean RMSE over channels is no better than that of climatology",
        "not finite",
    ):
        assert said in limits
    assert "real weather" not in limits


def test_faults(scored, tmp_path):
    scores, *_ = scored()
    with pytest.raises(ValueError, match="section is one of"):
        card(scores, figures=[CardFigure("elsewhere", "x", b"\x89PNG")])
    with pytest.raises(ValueError, match="PNG"):
        card(scores, figures=[CardFigure("maps", "x", b"<svg>")])
    path = write_model_card("<p>x</p>", tmp_path / "reports" / "card.html")
    assert path.read_text() == "<p>x</p>"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnwritableOutputError, match="cannot be written"):
        write_model_card("x", tmp_path / "file" / "card.html")
