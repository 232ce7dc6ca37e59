"""How fast samples come: raw reads, the copy to the device, and each tier beside a step of a given speed.

``python benchmarks/feed.py`` makes a store, measures and prints tables within about two minutes on a GPU machine;
``--small`` is for machines without one. A sample is a pair of states.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from common import device_name, emit, latitudes, make_channels, parse_grid

from weathermill.tensors.shards import encode
from weathermill.tensors.store import TensorStore, TensorWriter
from weathermill.training.feed import Feed, make_feed
from weathermill.training.memory import HostBuffer
from weathermill.training.meter import StarvationMeter


def make_store(
    path: Path, states: int, channels: int, grid: tuple[int, int], threads: int = 8
) -> TensorStore:
    """Write a store of random fields; the same noise, shifted, in every shard."""
    rng = np.random.default_rng(0)
    writer = TensorWriter(
        path,
        channels=make_channels(channels),
        latitude=latitudes(grid[0]),
        longitude=np.arange(grid[1]) * (360.0 / grid[1]),
        times=np.arange(states) * 21600,
        calendar="standard",
        time_step=21600,
        area_weights=np.ones(grid[0]),
        mean=np.zeros(channels),
        std=np.ones(channels),
        tendency_std=np.full(channels, 0.5),
        splits={"train": [(0, states)], "validation": [(0, min(states, 65))]},
        fingerprint="benchmark",
    )
    start, stop = writer.ranges[0]
    noise = encode(rng.standard_normal((stop - start, channels, *grid), dtype=np.float32), "float16")

    def write(k: int) -> None:
        start, stop = writer.ranges[k]
        writer.write_stored(k, np.roll(noise[: stop - start], 7 * k, axis=-1), [0.0] * channels)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(len(writer.ranges))))
    writer.finish()
    return TensorStore(path)


def forget(store: TensorStore) -> None:
    """Drop the store's files from the page cache, so that the disk itself is read."""
    for file in store.path.rglob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def raw_reads(store: TensorStore, method: str, threads: int, seconds: float, pin: bool) -> float:
    """Samples (pairs) per second read into host buffers, in random order, with nothing else going on."""
    buffers = [HostBuffer((2, *store.state_shape), store.numpy_dtype, pin) for _ in range(threads)]
    starts = np.random.default_rng(1).permutation(len(store) - 1)
    end = time.perf_counter() + seconds

    def work(k: int) -> int:
        out, count = buffers[k].array, 0
        while time.perf_counter() < end:
            i = int(starts[(k * 7919 + count) % len(starts)])
            if method == "read":
                store.read_into(i, i + 2, out)
            else:
                store.read_range(i, i + 2, out=out)
            count += 1
        return count

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(work, range(threads)))
    rate = total / (time.perf_counter() - began)
    for buffer in buffers:
        buffer.close()
    return rate


def copy_rate(device: torch.device, nbytes: int) -> float:
    """Bytes per second from page-locked memory to the device."""
    source = HostBuffer((nbytes,), np.dtype(np.uint8), True)
    tensor = torch.from_numpy(source.array)
    target = torch.empty(nbytes, dtype=torch.uint8, device=device)
    times = []
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(tensor, non_blocking=True)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    source.close()
    return nbytes / statistics.median(times)


class Load:
    """Stands for a training step: keeps the device busy for a given time, without touching the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self.a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
            for _ in range(5):
                self.a @ self.a
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(50):
                self.a @ self.a
            end.record()
            end.synchronize()
            self.unit = begin.elapsed_time(end) / 1e3 / 50

    def __call__(self, seconds: float) -> None:
        """Queue the work."""
        if self.device.type == "cuda":
            for _ in range(max(1, round(seconds / self.unit))):
                self.a @ self.a
        else:
            time.sleep(seconds)


def beside_a_step(feed: Feed, load: Load, rate: float | None, seconds: float) -> dict:
    """Draw batches beside a step that takes ``batch / rate`` seconds (None: no step, as fast as it goes)."""
    device, batch = feed.device, feed.batch_size
    meter = StarvationMeter(feed, None, device)
    total = torch.zeros((), device=device)
    epoch, end = 0, 0.0
    began = None
    while began is None or time.perf_counter() < end:
        for k, item in enumerate(meter.batches(feed.epoch(epoch))):
            if began is None and k == 3:
                # The first batches find empty buffers: they are the start of a training, not its course.
                if device.type == "cuda":
                    torch.cuda.synchronize()
                meter.reset()
                began, end = time.perf_counter(), time.perf_counter() + seconds
            total += item.window[:, :, 0, 0, 0].float().sum()
            if rate:
                load(batch / rate)
            if began is not None and time.perf_counter() > end:
                break
        epoch += 1
        if began is None and epoch > 3:
            began, end = time.perf_counter(), time.perf_counter() + seconds
    if device.type == "cuda":
        torch.cuda.synchronize()
    summary = meter.summary()
    elapsed = time.perf_counter() - began
    return {
        "tier": feed.tier,
        "batch": batch,
        "step_samples_per_second": rate,
        "samples_per_second": meter.samples / elapsed,
        "waiting_share": summary["feed/waiting_share"],
        "copying_share": summary["feed/copying_share"],
        "host_waiting_share": summary["feed/host_waiting_share"],
        "advice": meter.advice(summary),
        "reader": getattr(feed._source, "reader", None),
    }


def check(store: TensorStore, tier: str, device: torch.device, **options) -> int:
    """Compare delivered windows with the store while the device lags behind; gives the number that differ."""
    load = Load(device)
    different = 0
    with make_feed(store, "validation", 2, 4, device, tier, **options) as feed:
        kept = []
        for batch in feed.epoch(0):
            load(0.01)
            kept.append((batch.starts.copy(), batch.window.clone()))
        for starts, window in kept:
            for i, delivered in zip(starts, window.cpu(), strict=True):
                stored = torch.from_numpy(np.array(store.read_range(i, i + 3)))
                different += not torch.equal(delivered, stored)
    return different


def raw_table(
    store: TensorStore, a: argparse.Namespace, about: dict, device: torch.device
) -> tuple[float, int]:
    """Measure reads and the copy to the device by themselves; gives the best rate and its threads."""
    cuda, pair, best = device.type == "cuda", 2 * store.state_nbytes, (0.0, 1)
    print(f"\n{'raw reads':>10} {'threads':>8} {'samples/s':>10} {'GB/s':>7}")
    for method in ("read", "memmap"):
        for threads in [n for n in a.threads if n <= (os.cpu_count() or 1)]:
            rate = raw_reads(store, method, threads, a.seconds / 2, cuda)
            best = max(best, (rate, threads))
            print(f"{method:>10} {threads:8d} {rate:10.0f} {rate * pair / 1e9:7.2f}")
            emit({**about, "case": method, "threads": threads, "samples_per_second": rate})
    forget(store)
    rate = raw_reads(store, "read", best[1], a.seconds, cuda)
    print(f"{'from disk':>10} {best[1]:8d} {rate:10.0f} {rate * pair / 1e9:7.2f}")
    emit({**about, "case": "read-cold", "threads": best[1], "samples_per_second": rate})
    if cuda:
        rate = copy_rate(device, 2**30)
        print(f"\ncopy to the device: {rate / 1e9:.1f} GB/s = {rate / pair:.0f} samples/s")
        emit({**about, "case": "copy", "samples_per_second": rate / pair, "gbytes_per_second": rate / 1e9})
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="181x360")
    parser.add_argument("--channels", type=int, default=65)
    parser.add_argument("--states", type=int, default=800)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 4, 8, 12, 16])
    parser.add_argument("--rates", type=float, nargs="*", default=[1300, 1500, 1700])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument(
        "--folder", default=None, help="where to put the store; a temporary folder by default"
    )
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    parser.add_argument("--brief", action="store_true", help="the tiers beside a step, and nothing else")
    a = parser.parse_args()
    if a.small:
        a.grid, a.channels, a.states, a.batch = "46x90", 16, 200, 8
        a.threads, a.rates, a.seconds = [1, 2], [200], 0.5
    grid = parse_grid(a.grid)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = Path(tempfile.mkdtemp(dir=a.folder))
    about = {"benchmark": "feed", "device": device_name(device), "grid": a.grid, "channels": a.channels}
    try:
        began = time.perf_counter()
        store = make_store(folder / "store", a.states, a.channels, grid)
        seconds = time.perf_counter() - began
        pair = 2 * store.state_nbytes
        print(
            f"store: {store.nbytes / 2**30:.2f} GiB written in {seconds:.1f} s; a sample is {pair / 1e6:.2f} MB"
        )
        emit({**about, "case": "write", "gbytes_per_second": store.nbytes / seconds / 1e9})

        best = (0.0, os.cpu_count() or 1)
        basic: list[tuple[str, dict]] = [("device", {}), ("pinned", {}), ("mapped", {})]
        if not a.brief:
            best = raw_table(store, a, about, device)
            basic.append(("mapped", {"consecutive": 4}))
            for tier, options in basic:
                different = check(store, tier, device, **options)
                print(f"check {tier} {options or ''}: {different} windows differ from the store")
                emit({**about, "case": "check", "tier": tier, "different": different, **options})

        print(
            f"\n{'tier':>8} {'batch':>6} {'step at':>8} {'samples/s':>10} {'waiting':>8} {'copying':>8} "
            f"{'loading':>8}"
        )
        further = (
            []
            if a.brief
            else [{"reader": "read"}, {"reader": "memmap"}, {"threads": 4}, {"threads": best[1]}]
        )
        cases = [*basic, *(("mapped", options) for options in further)]
        load = Load(device)
        for tier, options in cases:
            began = time.perf_counter()
            with make_feed(store, "train", 1, a.batch, device, tier, **options) as feed:
                loading = time.perf_counter() - began
                for rate in [None, *a.rates] if not options else [None, a.rates[-1]]:
                    row = beside_a_step(feed, load, rate, a.seconds)
                    note = ", ".join([row["reader"] or "", *(f"{k}={v}" for k, v in options.items())])
                    print(
                        f"{tier:>8} {a.batch:6d} {'none' if rate is None else f'{rate:.0f}':>8} "
                        f"{row['samples_per_second']:10.0f} {row['waiting_share']:8.1%} "
                        f"{row['copying_share']:8.1%} {loading:7.1f}s  {note}"
                    )
                    emit({**about, "case": "tier", "loading_s": loading, **row, **options})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
