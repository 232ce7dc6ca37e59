"""Which padding suits edges beyond which nothing is known: trainings on a region, scored at its rim and inside.

``python benchmarks/open_edges.py 2m_temperature.grib`` reads one variable of a regional file, trains a U-Net with each
padding of `model.open_edges` from several seeds, and forecasts the last part of the period. It prints the root mean square
error over that of persistence for rings of cells around the rim and for the interior, as means and standard deviations over the seeds.
It needs the whole package, as it reads files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import emit

from weathermill.fields.conventions import canonicalise
from weathermill.fields.grids import area_weights
from weathermill.fields.opening import open_sources
from weathermill.models.boundary import PADDINGS
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.store import TensorStore, TensorWriter
from weathermill.training.engine import TrainConfig, train
from weathermill.training.tracker import NullTracker


def write_store(folder: Path, source: str, variable: str) -> TensorStore:
    """Bring one variable of a file into a tensor store: 70 % training, 12 % validation, the rest test."""
    with open_sources([source]) as opened:
        fields = canonicalise(
            opened.datasets, variables=[], surface_variables=[variable], source_names=opened.names
        )
        field = fields[variable].transpose("time", "latitude", "longitude").load()
    values = field.values[:, None].astype(np.float64)
    times = field["time"].values.astype("datetime64[s]").astype(np.int64)
    n = len(times)
    first, second = int(0.7 * n), int(0.82 * n)
    areas = area_weights(field["latitude"].values)
    mean = np.average(values[:first].mean(axis=(0, 1, 3)), weights=areas)
    std = np.sqrt(np.average(((values[:first] - mean) ** 2).mean(axis=(0, 1, 3)), weights=areas))
    writer = TensorWriter(
        folder,
        channels=ChannelTable([Channel(variable, variable, None, "prognostic", str(field.attrs["units"]))]),
        latitude=field["latitude"].values.astype(np.float64),
        longitude=field["longitude"].values.astype(np.float64),
        times=times,
        calendar="standard",
        time_step=int(times[1] - times[0]),
        area_weights=areas,
        mean=np.array([mean]),
        std=np.array([std]),
        tendency_std=np.array([np.diff(values[:first], axis=0).std()]),
        splits={"train": [(0, first)], "validation": [(first, second)], "test": [(second, n)]},
        dtype="float32",
        fingerprint="region",
    )
    normalised = ((values - mean) / std).astype(np.float32)
    for start, stop in writer.pending():
        writer.write(start, normalised[start:stop])
    writer.finish()
    return TensorStore(folder)


def parts_of(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Masks of rings of cells, of the western and eastern rims, and of the interior."""
    rows, columns = np.indices(shape)
    to_rim = np.minimum.reduce([rows, shape[0] - 1 - rows, columns, shape[1] - 1 - columns])
    inside = (rows >= 2) & (rows < shape[0] - 2)
    return {
        "ring of 1": to_rim < 1,
        "ring of 2": to_rim < 2,
        "ring of 4": to_rim < 4,
        "interior": to_rim >= 8,
        "west": inside & (columns < 2),
        "east": inside & (columns >= shape[1] - 2),
        "all": to_rim >= 0,
    }


@torch.no_grad()
def ratios(store: TensorStore, forecaster: Forecaster, leads: list[int]) -> dict[str, dict[str, float]]:
    """RMSE over that of persistence by lead time and part of the grid, in the test period."""
    starts = store.windows("test", max(leads))
    initial = np.concatenate([store.physical(int(i), int(i) + 1) for i in starts])
    result = {}
    for step, forecast in enumerate(forecaster.rollout_physical(initial, max(leads)), start=1):
        if step not in leads:
            continue
        truth = np.concatenate([store.physical(int(i) + step, int(i) + step + 1) for i in starts])
        squares, reference = ((x - truth).astype(np.float64) ** 2 for x in (forecast, initial))
        squares, reference = (x.mean(axis=(0, 1)) for x in (squares, reference))
        result[f"{step * store.time_step / 3600:g} h"] = {
            name: float(np.sqrt(squares[mask].mean() / reference[mask].mean()))
            for name, mask in parts_of(store.grid_shape).items()
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--variable", default="2m_temperature")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rollout", type=int, default=3)
    parser.add_argument("--paddings", nargs="+", default=list(PADDINGS), choices=PADDINGS)
    parser.add_argument("--leads", type=int, nargs="+", default=[1, 6, 12], help="In time steps.")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", a.source, a.variable)
        for padding in a.paddings:
            runs = []
            for seed in range(a.seeds):
                config = TrainConfig(
                    epochs=a.epochs,
                    batch_size=16,
                    learning_rate=2e-3,
                    weight_decay=0.05,
                    schedule="cosine",
                    rollout=(1,) * (a.epochs - a.epochs // 4) + (a.rollout,),
                    seed=seed,
                )
                model = ModelConfig(base_channels=a.base, depth=a.depth, open_edges=padding)
                result = train(store, model, config, None, NullTracker(), progress=False)
                runs.append(ratios(store, result.forecaster, a.leads))
                print(padding, seed, json.dumps(runs[-1]), flush=True)
            for lead in runs[0]:
                table = {part: np.array([run[lead][part] for run in runs]) for part in runs[0][lead]}
                emit(
                    {
                        "benchmark": "open_edges",
                        "padding": padding,
                        "edges": result.forecaster.config.edges.describe(),
                        "lead": lead,
                        "depth": a.depth,
                        "seeds": a.seeds,
                        **{part: round(float(v.mean()), 4) for part, v in table.items()},
                        "std": {part: round(float(v.std(ddof=1)), 4) for part, v in table.items()}
                        if a.seeds > 1
                        else {},
                    }
                )


if __name__ == "__main__":
    main()
