"""The example image-greyscale: its pictures beside Pillow's, what it refuses, and its commands."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime
from PIL import Image, ImageChops

from tests.conftest import StartRapid
from tests.support import AWSLAMBDARIC, ROOT, give_up, run_command

if TYPE_CHECKING:
    from picture import PictureModule

EXAMPLE = ROOT / "examples" / "image-greyscale"
CAT = (EXAMPLE / "cat.jpg").read_bytes()
README = (EXAMPLE / "README.md").read_text()
FUNCTION_NAME = "image-greyscale-lambda"
BUILD_LIMIT_S = 50

Handler = Callable[[object, object], Any]


# --- the module, and another that is built once


def build(folder: Path, out: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    """Build the module of ``folder`` by its Makefile."""
    return run_command(
        "make",
        "--silent",
        f"--directory={folder}",
        f"OUT={out}",
        *variables,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        timeout=BUILD_LIMIT_S,
    )


@pytest.fixture(scope="session")
def wasm() -> Path:
    """Give the module that the repository has."""
    return EXAMPLE / "greyscale.wasm"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the module that the compiler of this machine makes."""
    out = tmp_path_factory.mktemp("image-greyscale") / "greyscale.wasm"
    done = build(EXAMPLE, out)
    if done.returncode != 0:
        give_up(done.stderr.strip().splitlines()[0])
    return out


@pytest.fixture(scope="session")
def handler(wasm: Path) -> Iterator[Handler]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GREYSCALE_WASM", str(wasm))
        patch.syspath_prepend(EXAMPLE)
        import greyscale

        yield greyscale.handler


@pytest.fixture
def make_module(handler: Handler, wasm: Path) -> Callable[..., PictureModule]:
    """Give a factory: a picture module of its own, with other limits or from another file."""
    import picture

    def make(path: Path = wasm, **limits: int) -> PictureModule:
        return picture.PictureModule(path, **limits)

    return make


# --- pictures


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def cat() -> Image.Image:
    return Image.open(io.BytesIO(CAT))


def with_alpha(image: Image.Image) -> Image.Image:
    result = image.convert("RGBA")
    result.putalpha(Image.radial_gradient("L").resize(image.size))
    return result


def noise(width: int, height: int) -> Image.Image:
    data = random.Random(1).randbytes(width * height)  # a seed: the same picture each time
    return Image.frombytes("L", (width, height), data)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(
    width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 0, interlaced: int = 0
) -> bytes:
    """Return a PNG with any size in its header, whatever its data is."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", data)
        + png_chunk(b"IEND", b"")
    )


def png_of(answer: Any) -> Image.Image:
    assert answer["statusCode"] == 200, answer["body"]
    image = Image.open(io.BytesIO(bytes.fromhex(answer["body"])))
    assert image.format == "PNG"
    image.load()
    return image


def differences(image: Image.Image, expected: Image.Image) -> list[int]:
    """Return how many values differ by 0, 1, 2 …; size and channels must be the same."""
    assert (image.mode, image.size) == (expected.mode, expected.size)
    histogram = ImageChops.difference(image, expected).histogram()
    return [sum(histogram[level::256]) for level in range(256)]


def event(picture: bytes) -> dict[str, object]:
    return {"body": picture.hex()}


def message_of(answer: Any, status: int = 400) -> str:
    """Check the form of a refusal, and return what it says."""
    assert (answer["statusCode"], answer["headers"]) == (
        status,
        {"Content-Type": "application/json"},
    )
    members = json.loads(answer["body"])
    assert list(members) == ["message"]
    return str(members["message"])


# --- beside Pillow


PNG = saved(cat(), "PNG")
PROGRESSIVE = saved(cat(), "JPEG", progressive=True, subsampling="4:2:0")
ONE_PIXEL = png_file(1, 1, zlib.compress(b"\0\0"))
TOO_MANY = "pixels, more than 25,000,000"

JPEG_PICTURES: dict[str, Callable[[], bytes]] = {
    "colour": lambda: CAT,
    "progressive": lambda: PROGRESSIVE,
    "grey": lambda: saved(cat().convert("L"), "JPEG", subsampling="4:2:2"),
    "narrow": lambda: saved(cat().crop((200, 100, 209, 101)), "JPEG"),
    "twelve megapixels": lambda: saved(cat().resize((4000, 3000)), "JPEG", quality=80),
}


@pytest.mark.parametrize("name", JPEG_PICTURES)
def test_a_jpeg_is_within_one_level_of_pillows(
    make_module: Callable[..., PictureModule], name: str
) -> None:
    picture = JPEG_PICTURES[name]()

    image = Image.open(io.BytesIO(make_module().greyscale(picture)))

    expected = Image.open(io.BytesIO(picture)).convert("L")
    assert sum(differences(image, expected)[2:]) == 0


def test_a_jpeg_of_pure_colours_is_nearly_everywhere_within_one_level(handler: Handler) -> None:
    """Where colours are cut off at 0 and 255, the roundings of two decoders can add up."""
    values = random.Random(1).choices([0, 255], k=3 * 64 * 48)
    colours = Image.frombytes("RGB", (64, 48), bytes(values)).resize((640, 480))
    picture = saved(colours, "JPEG", quality=90)

    image = png_of(handler(event(picture), None))
    counts = differences(image, Image.open(io.BytesIO(picture)).convert("L"))

    assert sum(counts[2:]) < sum(counts) / 1000
    assert sum(counts[3:]) == 0


PNG_PICTURES: dict[str, Callable[[], Image.Image]] = {
    "RGB": cat,
    "RGB with alpha": lambda: with_alpha(cat()),
    "grey": lambda: cat().convert("L"),
    "grey with alpha": lambda: with_alpha(cat()).convert("LA"),
    "palette": lambda: cat().convert("P", palette=Image.Palette.ADAPTIVE, colors=200),
    "black and white": lambda: cat().convert("1"),
    "one long row": lambda: noise(70_000, 1),
    "one long column": lambda: noise(1, 70_000),
    "repeated rows": lambda: noise(32_768, 1).resize((32_768, 5)),
}


@pytest.mark.parametrize("name", PNG_PICTURES)
def test_a_png_is_exactly_as_pillows(handler: Handler, name: str) -> None:
    source = PNG_PICTURES[name]()
    expected = source.convert("LA" if source.mode in ("RGBA", "LA") else "L")

    image = png_of(handler(event(saved(source, "PNG")), None))

    assert sum(differences(image, expected)[1:]) == 0


def test_the_transparent_colour_of_a_palette_becomes_alpha(handler: Handler) -> None:
    source = cat().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    picture = saved(source, "PNG", transparency=3)

    image = png_of(handler(event(picture), None))

    assert image.getchannel("A").getextrema() == (0, 255)
    assert sum(differences(image, Image.open(io.BytesIO(picture)).convert("LA"))[1:]) == 0


def test_of_16_bits_the_upper_8_are_kept(handler: Handler) -> None:
    rows = b"".join(b"\0" + struct.pack(">4H", 0, 0x1234, 0x80FF, 0xFFFF) for _ in range(2))

    image = png_of(handler(event(png_file(4, 2, zlib.compress(rows), bits=16)), None))

    assert image.tobytes() == bytes([0, 0x12, 0x80, 0xFF]) * 2


def test_the_answer_is_that_of_a_proxy_integration(handler: Handler) -> None:
    answer = handler({"body": CAT.hex().upper(), "isBase64Encoded": False}, None)

    assert png_of(answer).size == cat().size
    del answer["body"]
    assert answer == {
        "statusCode": 200,
        "headers": {"Content-Type": "image/png"},
        "isBase64Encoded": False,
    }


def test_pictures_side_by_side_do_not_mix(make_module: Callable[..., PictureModule]) -> None:
    module = make_module()
    pictures = [saved(cat().crop((n, n, n + 90, n + 90)), "PNG") for n in range(8)]
    one_by_one = [module.greyscale(picture) for picture in pictures]

    with ThreadPoolExecutor(4) as pool:
        side_by_side = list(pool.map(module.greyscale, pictures))

    assert side_by_side == one_by_one


# --- what is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1], 'the event must be an object like {"body": "<hex>"}, found an array'),
        (None, 'the event must be an object like {"body": "<hex>"}, found null'),
        ({}, "the event has no body: expected a picture, JPEG or PNG, as hex"),
        ({"body": None}, "the body must be a string of hex digits, found null"),
        ({"body": ""}, "the body is empty: expected a picture, JPEG or PNG, as hex"),
        ({"body": "ffd8f"}, "two hex digits for each byte, found an odd 5 digits"),
        ({"body": "ffd8xyzw"}, "nothing else, but character 5 of 8 is something else"),
        ({"body": "ffd\u00e9"}, "nothing else, but character 4 of 4 is something else"),
        ({"body": "ff\ud800d"}, "nothing else, but character 3 of 4 is something else"),
        ({"body": b"GIF89a".hex()}, "cannot be read: it is neither JPEG nor PNG"),
        ({"body": "ffd8ffd9"}, "cannot be read: Image not of any known type, or corrupt"),
    ],
    ids=str,
)
def test_a_wrong_request_is_told_what_is_wrong(handler: Handler, wrong: object, said: str) -> None:
    assert said in message_of(handler(wrong, None))


BAD_PICTURES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "a JPEG that is cut off": (lambda: CAT[:20_000], 64, "the JPEG file ends before"),
    "its end alone": (lambda: CAT[:-1], 64, "the JPEG file ends before"),
    "a PNG that is cut off": (lambda: PNG[:20_000], 64, "."),
    # stb_image alone would make a wrong picture of it.
    "a flipped bit of a PNG": (
        lambda: PNG[:9_000] + bytes([PNG[9_000] ^ 1]) + PNG[9_001:],
        64,
        "the checksum of a PNG chunk is wrong",
    ),
    # Two MiB are enough to find out, and are not enough to decode anything.
    "the largest PNG": (lambda: png_file(0x7FFFFFFF, 0x7FFFFFFF, b""), 2, TOO_MANY),
    "just too large": (lambda: png_file(5_001, 5_000, zlib.compress(b"")), 2, TOO_MANY),
    # A JPEG's header says height and width at a fixed place of its SOF segment.
    "the largest JPEG": (
        lambda: re.sub(rb"(?s)(?<=\xff\xc0..\x08)....", bytes.fromhex("ffffffff"), CAT),
        2,
        TOO_MANY,
    ),
    "unpacks to more": (
        lambda: png_file(1, 1, zlib.compress(bytes(64 << 20))), 32, "Out of memory",
    ),
    "many pixels": (
        lambda: saved(Image.new("RGB", (5000, 4000)), "JPEG"), 32, "Out of memory",
    ),
    "many bytes": (lambda: bytes(40 << 20), 32, "its 41,943,040 bytes do not fit into memory"),
    # Each scan would cost a pass over the picture, and takes next to no bytes.
    "many scans": (
        lambda: PROGRESSIVE[:-2] + b"\xff\xda\x00\x02" * 100 + PROGRESSIVE[-2:],
        64,
        "the JPEG has more than 100 scans",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_refused_and_harms_no_other(
    make_module: Callable[..., PictureModule], name: str
) -> None:
    make, mebibytes, said = BAD_PICTURES[name]
    module = make_module(memory_bytes=mebibytes << 20)

    with pytest.raises(ValueError, match=said):
        module.greyscale(make())
    assert module.greyscale(ONE_PIXEL)


def test_an_answer_over_lambdas_limit_is_413(handler: Handler) -> None:
    message = message_of(handler(event(saved(noise(2000, 1600), "PNG")), None), 413)

    png_bytes, answer_bytes = (
        int(n.replace(",", "")) for n in re.findall(r" (\d[\d,]+)\b", message)[:2]
    )
    assert message.endswith("; Lambda takes 6,291,556: send a smaller picture")
    assert max(6_291_556, 2 * png_bytes) < answer_bytes < 2 * png_bytes + 200


#: Answers one byte, and traps at a picture that begins with "T".
TRAPPING_MODULE = """
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) i32.const 1024)
  (func (export "measure") (param i32 i32) (result i32) i32.const 1)
  (func (export "width") (result i32) i32.const 1)
  (func (export "height") (result i32) i32.const 1)
  (func (export "convert") (param i32 i32) (result i32)
    local.get 0 i32.load8_u i32.const 84 i32.eq
    if unreachable end
    i32.const 0 i32.const 1 i32.store8
    i32.const 1)
  (func (export "result") (result i32) i32.const 0)
  (func (export "result_length") (result i32) i32.const 1)
  (func (export "error") (result i32) i32.const 0))
"""


def test_a_trap_is_a_refusal_that_harms_no_other_and_nothing_of_a_payload_is_logged(
    handler: Handler,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_module: Callable[..., PictureModule],
    tmp_path: Path,
) -> None:
    import greyscale

    caplog.set_level(logging.DEBUG)
    path = tmp_path / "trapping.wasm"
    path.write_bytes(wasmtime.wat2wasm(TRAPPING_MODULE))
    module = make_module(path)
    trapped = "its decoder stopped in a trap (UNREACHABLE)"

    for body in ("SECRET", event(b"SECRET"), {"body": "SECRET"}):
        handler(body, None)
    monkeypatch.setattr(greyscale, "_pictures", module)

    message = message_of(handler(event(b"TSECRET"), None))
    assert message == f"the picture cannot be read: {trapped}"
    assert module.greyscale(b"b") == b"\x01"
    assert [record.getMessage() for record in caplog.records] == [
        f"a picture cannot be read: {trapped}"
    ]
    assert capfd.readouterr() == ("", "")


def test_whatever_the_bytes_the_answer_is_200_or_400(handler: Handler) -> None:
    """A bounded fuzzer: cut, flipped and spliced pictures, the same ones each time."""
    small = cat().resize((60, 40))
    pictures = [
        saved(small, "JPEG"),
        saved(small, "JPEG", progressive=True),
        saved(with_alpha(small), "PNG"),
        saved(small.convert("P"), "PNG"),
    ]
    chance = random.Random(7)
    statuses = [handler(event(damaged(pictures, chance)), None)["statusCode"] for _ in range(300)]

    assert set(statuses) == {200, 400}


def damaged(pictures: list[bytes], chance: random.Random) -> bytes:
    """Return one of the pictures with something wrong; a PNG gets right checksums again."""
    picture = bytearray(chance.choice(pictures))
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(picture))
        match chance.randrange(4):
            case 0:
                picture[at] ^= 1 << chance.randrange(8)
            case 1:
                picture[at] = chance.choice([0, 0x7F, 0xFF])
            case 2:
                del picture[at : at + chance.randrange(1, 20)]
            case 3:
                other = chance.choice(pictures)
                start = chance.randrange(len(other))
                picture[at:at] = other[start : start + 40]
    if chance.random() < 0.3:
        del picture[chance.randrange(len(picture)) :]
    return with_checksums(bytes(picture)) if chance.random() < 0.7 else bytes(picture)


def with_checksums(picture: bytes) -> bytes:
    """Return a PNG whose chunks are as long as they say with their checksums made right."""
    if not picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return picture
    at, result = 8, picture[:8]
    while at + 12 <= len(picture):
        length = int.from_bytes(picture[at : at + 4], "big")
        if at + 12 + length > len(picture):
            break
        result += png_chunk(picture[at + 4 : at + 8], picture[at + 8 : at + 8 + length])
        at += 12 + length
    return result + picture[at:]


# --- the build


def test_the_module_imports_nothing(wasm: Path) -> None:
    module = wasmtime.Module.from_file(wasmtime.Engine(), str(wasm))

    assert [item.name for item in module.imports] == []
    assert {item.name for item in module.exports} == {
        "memory", "alloc", "release", "measure", "width", "height", "convert", "result",
        "result_length", "error",
    }  # fmt: skip


def test_the_compiler_of_the_shipped_module_makes_the_same_bytes(wasm: Path, built: Path) -> None:
    shipped_with, built_with = (
        Path(f"{path}.built-with").read_text().splitlines() for path in (wasm, built)
    )
    if built_with != shipped_with:
        pytest.skip(f"the shipped module is by {shipped_with}, here is {built_with}")

    assert built.read_bytes() == wasm.read_bytes()


def test_the_same_bytes_are_built_in_any_folder(built: Path, tmp_path: Path) -> None:
    for name in ("here", "somewhere else/deeper"):
        folder = tmp_path / name
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.wasm", "__pycache__"))
        done = subprocess.run(
            ["make", "--silent"], cwd=folder, capture_output=True, timeout=BUILD_LIMIT_S, check=True
        )

        assert (done.stdout, done.stderr) == (b"", b"")
        assert (folder / "greyscale.wasm").read_bytes() == built.read_bytes()
    for trace in (os.fsencode(tmp_path), os.fsencode(ROOT), b"/usr", b"greyscale.c"):
        assert trace not in built.read_bytes()


@pytest.mark.parametrize("missing", ["clang", "stb/stb_image.h", "stdlib.h"])
def test_without_compiler_or_header_make_says_what_to_install(tmp_path: Path, missing: str) -> None:
    clang = tmp_path / "clang"
    if missing != "clang":
        said = f"fatal error: '{missing}' file not found"
        clang.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
        clang.chmod(0o755)

    done = build(EXAMPLE, tmp_path / "greyscale.wasm", f"CLANG={clang}")

    assert done.returncode != 0
    assert "apt-get install clang lld wasi-libc" in done.stderr.splitlines()[0]
    assert not (tmp_path / "greyscale.wasm").exists()


# --- as a function


def test_without_its_module_the_function_says_how_to_build_it(start_rapid: StartRapid) -> None:
    rapid = start_rapid(
        *AWSLAMBDARIC, "greyscale.handler", ready=False,
        PYTHONPATH=f"{EXAMPLE}:{ROOT}", GREYSCALE_WASM="/nowhere/greyscale.wasm",
    )  # fmt: skip

    answer = rapid.invoke(json.dumps(event(CAT)))

    assert answer.json()["errorType"] == "Runtime.ImportModuleError"
    assert answer.json()["errorMessage"] == (
        "Unable to import module 'greyscale': there is no picture module at "
        f"/nowhere/greyscale.wasm; build it: make -C {EXAMPLE} OUT=/nowhere/greyscale.wasm"
    )


def test_the_command_lines_of_the_readme_make_the_picture(
    start_rapid: StartRapid, wasm: Path, tmp_path: Path
) -> None:
    for tool in ("curl", "xxd"):
        if shutil.which(tool) is None:
            give_up(f"no {tool} on this machine: apt-get install {tool}")
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (commands,) = [block for block in blocks if "output.png" in block and "curl" in block]
    assert f"http://localhost:8080/2015-03-31/functions/{FUNCTION_NAME}/invocations" in commands
    rapid = start_rapid(
        *AWSLAMBDARIC, "greyscale.handler",
        PYTHONPATH=f"{EXAMPLE}:{ROOT}", GREYSCALE_WASM=str(wasm),
        AWS_LAMBDA_FUNCTION_NAME=FUNCTION_NAME,
    )  # fmt: skip
    shutil.copy(EXAMPLE / "cat.jpg", tmp_path)
    commands = commands.replace("localhost:8080", f"localhost:{rapid.port}")

    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path, capture_output=True, timeout=BUILD_LIMIT_S, check=True,
    )  # fmt: skip

    image = Image.open(tmp_path / "output.png")
    assert sum(differences(image, cat().convert("L"))[2:]) == 0


def test_readme_states_the_limits(make_module: Callable[..., PictureModule]) -> None:
    import greyscale
    import picture

    assert f"{picture.MAX_PIXELS:,}" in README
    assert f"{picture.MEMORY_BYTES // 1024 // 1024} MiB" in README
    assert f"{greyscale.MAX_ANSWER_BYTES:,}" in README


def test_the_image_has_the_versions_that_are_tested() -> None:
    pins = re.findall(r"(awslambdaric|wasmtime)==(\S+)", (EXAMPLE / "Dockerfile").read_text())
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert len(pins) == 2
    assert {f"{name}=={version}" for name, version in pins} <= set(installed)
