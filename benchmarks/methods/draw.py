"""The images of docs/methods.md, drawn from the kept curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods.preferences import BETAS, CURVES
from benchmarks.methods.text import LARGER, LENGTH, SEEDS, WIDTHS, runs, source
from experience.pretraining.budget import measured_of
from experience.pretraining.scaling import fit


def draw(folder: Path) -> None:
    """Draws each image whose curves are there."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    folder.mkdir(exist_ok=True)
    kept = [CURVES / f"{name}-{seed}.json" for name in ("scaling",) for seed in SEEDS]
    if all(path.exists() for path in kept):
        _scaling(pyplot, folder / "methods-scaling.png")
    found = sorted(CURVES.glob("over-optimisation-*.json"))
    if found:
        _over_optimisation(pyplot, found, folder / "methods-over-optimisation.png")


def _scaling(pyplot: Any, path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 4))
    seed = SEEDS[0]
    found = runs(seed)
    law, floor = fit(measured_of(found[:-1])), source(seed).floor(LENGTH)
    lengths = np.geomspace(6e4, 2e6, 50)
    for color, width in enumerate([*WIDTHS, LARGER[0]]):
        own = [r for r in found if r["width"] == width]
        label = f"{own[0]['parameters']} parameters{'' if width in WIDTHS else ' (foretold)'}"
        at = [r["tokens"] for r in own], [r["nats"] for r in own]
        axes.plot(*at, "o", color=f"C{color}", label=label)
        expected = [law.loss(own[0]["parameters"], length) for length in lengths]
        axes.plot(lengths, expected, color=f"C{color}", linewidth=1)
    axes.axhline(floor, color="black", linestyle=":", label="entropy of the source")
    axes.axhline(law.floor, color="grey", linestyle="--", label="fitted floor")
    axes.set(xscale="log", xlabel="tokens", ylabel="held-out nats a token")
    axes.legend(fontsize=7)
    _save(pyplot, figure, path)


def _over_optimisation(pyplot: Any, found: list[Path], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 4))
    seeds = [json.loads(file.read_text()) for file in found]
    for color, beta in enumerate(BETAS):
        mean = np.mean([np.array(seed[f"{beta:g}"]) for seed in seeds], axis=0)
        axes.plot(mean[:, 2], color=f"C{color}", label=f"gold, β = {beta:g}")
        axes.plot(mean[:, 1], color=f"C{color}", linestyle=":", label=f"proxy, β = {beta:g}")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(xlabel="updates", ylabel=f"score, σ (mean of {len(seeds)} seeds)")
    axes.legend(fontsize=7)
    _save(pyplot, figure, path)


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
