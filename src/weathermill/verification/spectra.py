"""Variance by zonal wavenumber: what scales a forecast keeps.

Forecasts trained on squared errors blur with lead time, and good RMSE may hide it: the spectrum shows it. For
a field f on a latitude circle of N points with discrete Fourier coefficients F_k, the power at wavenumber k
is ``P_k = c_k |F_k|^2 / N^2`` with c = 1 for k = 0 and the Nyquist wavenumber, 2 otherwise, so that ``sum
P_k`` is the mean square of the field (Parseval). It is averaged over latitudes with area weights, and over
initial times.

Rows that do not go round the circle are not periodic: a Fourier transform would see a jump at the seam and spread it over
all wavenumbers. They are transformed by cosines instead (Denis, Cote and Laprise, 2002,
doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2), whose k-th has k half waves across the domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.fft
import xarray as xr
from matplotlib.figure import Figure

from weathermill.errors import VerificationError
from weathermill.extent import is_global_longitude
from weathermill.verification.labels import channel_units, long_name, region_label, squared_units_label
from weathermill.verification.metrics import headline_channels, headline_leads
from weathermill.verification.regions import Region, standard_regions, whole_region
from weathermill.verification.style import new_figure, source_style, styled

TRUTH = "truth"
_HALF_WAVES = "number of half waves across the domain"


def zonal_power(fields: np.ndarray) -> np.ndarray:
    """Return the power by zonal wavenumber.

    Parameters
    ----------
    fields
        (..., longitude), evenly spaced all round.

    Returns
    -------
    numpy.ndarray
        float64 (..., longitude // 2 + 1); sums to the mean square over the circle.
    """
    fields = _wide_enough(fields)
    n = fields.shape[-1]
    # Single precision is enough for a transform but not for 5e4 + 1: the mean, wavenumber 0, is taken off
    # first.
    mean = fields.mean(axis=-1, dtype=np.float64)
    power = (
        np.abs(scipy.fft.rfft(fields - mean[..., None].astype(fields.dtype), axis=-1)).astype(np.float64) ** 2
    )
    power *= 2.0 / n**2
    if n % 2 == 0:
        power[..., -1] /= 2
    power[..., 0] = mean**2
    return power


def cosine_power(fields: np.ndarray) -> np.ndarray:
    """Return the power by number of half waves across the domain, of rows that do not go round the circle.

    Parameters
    ----------
    fields
        (..., longitude), evenly spaced.

    Returns
    -------
    numpy.ndarray
        float64 (..., longitude); sums to the mean square over the row.
    """
    fields = _wide_enough(fields)
    mean = fields.mean(axis=-1, dtype=np.float64)
    centred = fields - mean[..., None].astype(fields.dtype)
    power = scipy.fft.dct(centred, type=2, norm="ortho", axis=-1).astype(np.float64) ** 2 / fields.shape[-1]
    power[..., 0] = mean**2
    return power


def _wide_enough(fields: np.ndarray) -> np.ndarray:
    """Return fields as float64 where the sums of a transform may not fit into their own type."""
    fields = np.asarray(fields)
    with np.errstate(invalid="ignore"):
        largest = max(float(fields.max()), -float(fields.min())) if fields.size else 0.0
    small = largest < np.finfo(np.float32).max / max(fields.shape[-1], 1) ** 2
    return fields if small else fields.astype(np.float64)


class SpectrumAccumulator:
    """Mean zonal spectra of forecasts and truth by channel, region and lead time, in one pass.

    Parameters
    ----------
    channels
        Names of the channels.
    lead_times
        Lead times in hours for which to take spectra (a few are enough).
    area_weights
        (latitude,) cell areas.
    latitude, longitude
        Degrees; without longitudes, rows go round the circle. Rows that do not have waves across the domain.
    units
        By channel.
    regions
        Latitude bands (boxes have no zonal wavenumber); those of
        `weathermill.verification.regions.standard_regions` by default.
    """

    def __init__(
        self,
        channels: Sequence[str],
        lead_times: Sequence[float],
        area_weights: np.ndarray,
        latitude: np.ndarray,
        longitude: np.ndarray | None = None,
        *,
        units: Sequence[str] | None = None,
        regions: Sequence[Region] | None = None,
    ) -> None:
        self.channels = [str(name) for name in channels]
        self.lead_times = np.asarray(lead_times, dtype=float)
        self.units = list(units) if units is not None else [""] * len(self.channels)
        weights = np.asarray(area_weights, dtype=np.float64)
        weights = weights.mean(axis=1) if weights.ndim == 2 else weights
        self.around = longitude is None or is_global_longitude(longitude)
        if regions is None:
            regions = standard_regions(
                latitude, np.arange(0.0, 360.0, 30.0) if longitude is None else longitude
            )
        self.regions, rows = [], []
        for region in regions:
            mask = region.contains(np.asarray(latitude), np.zeros(1))[:, 0]
            if mask.any():
                self.regions.append(region)
                rows.append(mask * weights / (mask * weights).sum())
        self._rows = np.stack(rows)
        self._sums: dict[str, np.ndarray] = {}
        self._counts: dict[str, np.ndarray] = {}

    def update(
        self,
        forecast: np.ndarray | Mapping[str, np.ndarray],
        truth: np.ndarray,
        *,
        lead_times: Sequence[float] | None = None,
    ) -> None:
        """Add forecasts; lead times that are not among the accumulator's are ignored.

        Parameters
        ----------
        forecast, truth
            (init, lead, channel, latitude, longitude), physical units; forecasts may be several by source
            name.
        lead_times
            Those of this piece in hours; all of the accumulator's by default.
        """
        sources = dict(forecast) if isinstance(forecast, Mapping) else {"forecast": forecast}
        leads = self.lead_times if lead_times is None else np.atleast_1d(np.asarray(lead_times, dtype=float))
        known = self.lead_times.tolist()
        for source, array in {**sources, TRUTH: truth}.items():
            array = np.asarray(array)
            if array.ndim != 5 or array.shape[1] != len(leads) or array.shape[2] != len(self.channels):
                raise VerificationError(
                    f"{source} has shape {array.shape}, not (init, {len(leads)}, channel, ...)"
                )
            for position, lead in enumerate(leads.tolist()):
                if lead not in known:
                    continue
                for fields in array[:, position]:
                    self._add(source, known.index(lead), fields)

    def _add(self, source: str, slot: int, fields: np.ndarray) -> None:
        n_waves = fields.shape[-1] // 2 + 1 if self.around else fields.shape[-1]
        shape = (len(self.channels), len(self.regions), len(self.lead_times), n_waves)
        sums = self._sums.setdefault(source, np.zeros(shape))
        counts = self._counts.setdefault(source, np.zeros(len(self.lead_times), dtype=np.int64))
        for channel, field in enumerate(fields):
            # A latitude circle with a gap has no spectrum: its row is left to the others.
            power = zonal_power(field) if self.around else cosine_power(field)
            whole = np.isfinite(power).all(axis=-1)
            weights = self._rows * whole
            total = weights.sum(axis=1, keepdims=True)
            with np.errstate(invalid="ignore", divide="ignore"):
                sums[channel, :, slot] += (weights @ np.where(whole[:, None], power, 0.0)) / total
        counts[slot] += 1

    def result(self) -> xr.Dataset:
        """Return ``power`` (source, channel, region, lead_time, wavenumber), in squared units of the channel."""
        if not self._sums:
            raise VerificationError("no spectrum was accumulated", remedy="Call update before result.")
        sources = sorted(self._sums)
        waves = "zonal wavenumber" if self.around else _HALF_WAVES
        with np.errstate(invalid="ignore"):
            power = np.stack([self._sums[s] / self._counts[s][None, None, :, None] for s in sources])
        return xr.Dataset(
            {
                "power": (
                    ("source", "channel", "region", "lead_time", "wavenumber"),
                    power,
                    {"long_name": f"variance by {waves}"},
                )
            },
            coords={
                "source": sources,
                "channel": self.channels,
                "region": [region.name for region in self.regions],
                "lead_time": ("lead_time", self.lead_times, {"units": "h", "long_name": "lead time"}),
                "wavenumber": ("wavenumber", np.arange(power.shape[-1]), {"long_name": waves}),
                "units": ("channel", self.units),
            },
            attrs={"title": "Zonal power spectra" if self.around else "Power spectra along latitude circles"},
        )


def goes_round(spectra: xr.Dataset) -> bool:
    """Return whether spectra are by zonal wavenumber, and not by half waves across a domain."""
    return spectra["wavenumber"].attrs.get("long_name") != _HALF_WAVES


def spectral_ratio(spectra: xr.Dataset, *, source: str = "forecast") -> xr.DataArray:
    """Return forecast over true power: 1 keeps a scale, below 1 blurs it, above 1 makes noise."""
    truth = spectra["power"].sel(source=TRUTH, drop=True)
    ratio = spectra["power"].sel(source=source, drop=True) / truth.where(truth > 0)
    ratio.attrs = {"long_name": "forecast over true power", "units": "1"}
    return ratio.rename("power_ratio")


#: First wavenumbers of bands: planetary, synoptic, and ever smaller scales.
BANDS = (1, 4, 9, 21, 101)


def band_ratio(spectra: xr.Dataset, *, source: str = "forecast") -> xr.DataArray:
    """Return forecast over true power summed over bands of zonal wavenumbers, as far as the grid resolves them.

    Returns
    -------
    xarray.DataArray
        (band, channel, region, lead_time); ``band`` is text such as "4-8".
    """
    highest = int(spectra["wavenumber"][-1])
    starts = [first for first in BANDS if first <= highest]
    stops = [*(first - 1 for first in starts[1:]), highest]
    sums = xr.concat(
        [
            spectra["power"].sel(wavenumber=slice(first, last)).sum("wavenumber", skipna=False)
            for first, last in zip(starts, stops, strict=True)
        ],
        dim=xr.DataArray([f"{a}-{b}" for a, b in zip(starts, stops, strict=True)], dims="band", name="band"),
    )
    truth = sums.sel(source=TRUTH, drop=True)
    ratio = sums.sel(source=source, drop=True) / truth.where(truth > 0)
    return ratio.transpose("band", "channel", "region", "lead_time").rename("power_ratio")


@styled
def spectra_plot(
    spectra: xr.Dataset,
    *,
    channels: Sequence[str] | None = None,
    leads: Sequence[float] | None = None,
    region: str | None = None,
    title: str | None = None,
) -> Figure:
    """Draw spectra of truth and forecasts, and their ratio below, a column per channel.

    Parameters
    ----------
    spectra
        From `SpectrumAccumulator.result`.
    channels
        At most four headline ones by default.
    leads
        Lead times in hours; by default up to four headline ones.
    region
        Which region; all cells by default.
    title
        Title of the figure.
    """
    region = region or whole_region(spectra["region"].to_numpy())
    names = spectra["channel"].to_numpy().tolist()
    channels = headline_channels(names, limit=3) if channels is None else list(channels)
    leads = headline_leads(spectra["lead_time"].to_numpy())[:4] if leads is None else list(leads)
    figure = new_figure(2.75 * len(channels) + 0.3, 4.2)
    axes = figure.subplots(2, len(channels), squeeze=False, sharex=True, height_ratios=[2, 1])
    waves = spectra["wavenumber"].to_numpy()[1:]
    ratio = spectral_ratio(spectra)
    shades = _shades(len(leads))
    handles: dict[str, Any] = {}
    for column, channel in enumerate(channels):
        upper, lower = axes[:, column]
        power = spectra["power"].sel(channel=channel, region=region).isel(wavenumber=slice(1, None))
        truth = power.sel(source=TRUTH).mean("lead_time")
        (line,) = upper.loglog(waves, truth, color="black", linewidth=1.6, label="truth")
        handles.setdefault("truth", line)
        for lead, shade in zip(leads, shades, strict=True):
            (line,) = upper.loglog(
                waves, power.sel(source="forecast", lead_time=lead), color=shade, linewidth=1.2
            )
            handles.setdefault(f"forecast, {lead:g} h", line)
            values = ratio.sel(channel=channel, region=region, lead_time=lead).isel(wavenumber=slice(1, None))
            lower.loglog(waves, values, color=shade, linewidth=1.2)
        lower.axhline(1.0, color="black", linewidth=0.9)
        shown = ratio.sel(channel=channel, region=region, lead_time=leads).isel(wavenumber=slice(1, None))
        _ratio_axis(lower, shown.to_numpy())
        upper.set_title(long_name(channel))
        units = squared_units_label(channel_units(spectra, channel))
        upper.set_ylabel("Power" + (f" ({units})" if units != "1" else ""))
        # What lies far below the truth is rounding; it would squeeze the rest.
        lowest = float(truth.where(truth > 0).min())
        if np.isfinite(lowest):
            upper.set_ylim(bottom=max(upper.get_ylim()[0], 1e-3 * lowest))
        lower.set_ylabel("Forecast / truth")
        lower.set_xlabel("Zonal wavenumber" if goes_round(spectra) else "Half waves across the domain")
        _wave_ticks(lower, int(waves[-1]))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    figure.suptitle(
        title or f"{spectra.attrs.get('title', 'Zonal power spectra')}, {region_label(region)}", fontsize=9.5
    )
    return figure


def _ratio_axis(axis: Any, ratio: np.ndarray) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    finite = ratio[np.isfinite(ratio) & (ratio > 0)]
    low, high = (finite.min(), finite.max()) if finite.size else (1.0, 1.0)
    # Ten times too little or too much tells enough; a factor of two either way is always shown.
    axis.set_ylim(float(np.clip(low / 1.1, 0.09, 0.45)), float(np.clip(high * 1.1, 2.2, 11.0)))
    axis.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())


def _wave_ticks(axis: Any, highest: int) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k <= highest]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _shades(count: int) -> list[Any]:
    import matplotlib

    if count == 1:
        return [source_style("forecast")["color"]]
    return [matplotlib.colormaps["viridis"](0.1 + 0.75 * i / (count - 1)) for i in range(count)]
