"""Measures the picture module beside Pillow: ``python speed.py``, in a Python that has Pillow.

Each round does everything once, one after the other, so that a busy machine is busy for all;
the medians of the rounds are shown. Pillow stands for what a function without a sandbox would use.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from picture import PictureModule
from PIL import Image

FOLDER = Path(__file__).parent
PILLOW_DEFAULT_LEVEL = 6


def main() -> None:
    """Print a table as Markdown."""
    parser = argparse.ArgumentParser(description="Compare the picture module with Pillow.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds: int = parser.parse_args().rounds
    module = PictureModule(
        Path(os.environ.get("GREYSCALE_WASM") or FOLDER / "greyscale.wasm"),
    )
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before,")
    print(f"Python {platform.python_version()}, {rounds} rounds\n")
    print("| picture | module | Pillow | ratio | Pillow, level of the same size | ratio |")
    print("|---|---|---|---|---|---|")
    for name, picture in pictures().items():
        print(row(name, picture, module, rounds))


def pictures() -> dict[str, bytes]:
    """Return what is converted: the cat, the cat as a camera would take it, and with alpha."""
    cat = Image.open(FOLDER / "cat.jpg")
    # Enlarging makes a picture smoother than any camera does; the noise stands for its sensor's.
    noise = Image.effect_noise((4000, 3000), 12).convert("RGB")
    large = Image.blend(cat.resize(noise.size, Image.Resampling.BICUBIC), noise, 0.25)
    alpha = cat.convert("RGBA")
    alpha.putalpha(Image.radial_gradient("L").resize(cat.size))
    return {
        "cat.jpg": (FOLDER / "cat.jpg").read_bytes(),
        "JPEG of 12 megapixels": saved(large, "JPEG", quality=85),
        "PNG with alpha": saved(alpha, "PNG"),
    }


def row(name: str, picture: bytes, module: PictureModule, rounds: int) -> str:
    """Return one line of the table."""
    own_size = len(module.greyscale(picture))
    level = min(range(1, 10), key=lambda level: abs(len(with_pillow(picture, level)) - own_size))
    ways: list[Callable[[], bytes]] = [
        lambda: module.greyscale(picture),
        lambda: with_pillow(picture, PILLOW_DEFAULT_LEVEL),
        lambda: with_pillow(picture, level),
    ]
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    own, default, matched = (1000 * statistics.median(taken) for taken in times)
    default_size, matched_size = (len(way()) for way in ways[1:])
    return (
        f"| {name}, {len(picture):,} bytes | {own:.1f} ms, {own_size:,} bytes "
        f"| {default:.1f} ms, {default_size:,} bytes | {own / default:.2f} "
        f"| level {level}: {matched:.1f} ms, {matched_size:,} bytes | {own / matched:.2f} |"
    )


def with_pillow(picture: bytes, level: int) -> bytes:
    """Return the greyscale PNG that Pillow makes."""
    image = Image.open(io.BytesIO(picture))
    return saved(image.convert("LA" if image.mode == "RGBA" else "L"), "PNG", compress_level=level)


def saved(image: Image.Image, file_format: str, **options: int) -> bytes:
    """Return the picture as a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


if __name__ == "__main__":
    main()
