"""viser's page as files of their own, which a browser reads sooner than viser's single file.

viser ships one HTML file whose program and style lie in it compressed; a script in it decodes them on every visit, and
the browser then compiles 2.5 MB of text. Served unpacked, the program is compiled while it arrives, and is kept by the
browser. Nothing in it is changed; a style and a script of ours (static/viewer.*) run before it. An index that is packed
in another way is served as it is.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import viser
import zstandard

INDEX = Path(viser.__file__).parent / "client" / "build" / "index.html"
# viser's vite-plugin-compress-html.mts says how: base 88 of printable characters that need no escaping in an attribute
_ALPHABET = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "\"&<>'`")
_PACKED = re.compile(r'<script data-p="([^"]*)" data-ss="(\d+)" data-cs="(\d+)">(.*?)</script>', re.DOTALL)
_DECODER = re.compile(r'const gzWasm=("(?:[^"\\]|\\.)*")')
# ours, for what is in the frame
_OURS = '<link rel="stylesheet" href="/static/viewer.css"><script src="/static/viewer.js"></script>'
_KINDS = {"js": "text/javascript", "css": "text/css", "wasm": "application/wasm", "html": "text/html"}


@dataclass(frozen=True)
class Asset:
    content: bytes
    packed: bytes  # the same, gzip

    @classmethod
    def of(cls, content: bytes) -> Asset:
        return cls(content, gzip.compress(content, 6))


@dataclass(frozen=True)
class ViewerClient:
    page: Asset
    files: dict[str, Asset]  # by names that change with the content

    @classmethod
    def of(cls, index: str) -> ViewerClient:
        """`index`: viser's single file. The page expects its files beside itself, in `client/`."""
        packed = _PACKED.search(index)
        decoder = None if packed is None else _DECODER.search(packed[4])
        if packed is None or decoder is None:
            return cls(Asset.of(index.replace("</head>", f"{_OURS}</head>").encode()), {})
        style, script = _unpacked(packed)
        contents = {"css": style, "js": script, "wasm": gzip.decompress(_from_base_88(json.loads(decoder[1])))}
        digest = hashlib.sha256(b"".join(contents.values())).hexdigest()[:16]
        names = {kind: f"client/{digest}.{kind}" for kind in contents}
        # The program takes its decoder of messages from this global, as viser's own loader leaves it there.
        start = (
            f'<link rel="stylesheet" href="{names["css"]}">{_OURS}<link rel="modulepreload" href="{names["js"]}">'
            f'<script type="module">globalThis.__viserZstdWasm = await WebAssembly.compileStreaming('
            f'fetch("{names["wasm"]}")); await import("./{names["js"]}");</script>'
        )
        page = index[: packed.start()] + start + index[packed.end() :]
        files = {names[kind].removeprefix("client/"): Asset.of(content) for kind, content in contents.items()}
        return cls(Asset.of(page.encode()), files)


def kind_of(name: str) -> str:
    """The media type of a file."""
    return _KINDS[name.rpartition(".")[2]]


def _unpacked(packed: re.Match[str]) -> tuple[bytes, bytes]:
    style, script = int(packed[2]), int(packed[3])
    content = zstandard.ZstdDecompressor().decompress(_from_base_88(packed[1]), max_output_size=style + script)
    return content[:style], content[style:]


def _from_base_88(text: str) -> bytes:
    """Every 5 characters are 4 bytes; a last group of k characters is k - 1 bytes."""
    values = np.full(128, -1, np.int64)
    values[[ord(letter) for letter in _ALPHABET]] = np.arange(88)
    digits = values[np.frombuffer(text.encode("ascii"), np.uint8)]
    whole = len(digits) // 5 * 5
    groups = digits[:whole].reshape(-1, 5) @ 88 ** np.arange(4, -1, -1, dtype=np.int64)
    rest = 0
    for digit in digits[whole:].tolist():
        rest = rest * 88 + digit
    last = max(len(digits) - whole - 1, 0)
    return groups.astype(">u4").tobytes() + rest.to_bytes(last, "big")
