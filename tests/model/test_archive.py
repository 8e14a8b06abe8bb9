import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelError
from service.model import archive
from service.model.classifier import Classifier
from service.model.train import Trained

Content = dict[str, bytes]


def npy(array: np.ndarray[Any, Any], *, version: tuple[int, int] = (1, 0), allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in members:
            written.writestr(name, content)
    return file.getvalue()


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Classifier.load(path)
    message = str(caught.value)
    start, end = f"{path}: is not a model that can be used: ", "; train the model again with `labelstream models train`"
    assert message.startswith(start)
    assert end in message
    return message.removeprefix(start).partition(end)[0]


@pytest.fixture
def content(single_label: Trained) -> Content:
    return dict(single_label.content)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model.zip"


def test_a_file_that_is_no_zip_or_only_a_part_of_one_is_refused(model: Path, content: Content) -> None:
    whole = archive.pack(content)
    for part in (b"", b"PK", b"\x80\x04\x95", whole[:-30], whole[: len(whole) // 2]):
        assert "not a whole zip file" in refusal(model, part)


def test_a_file_larger_than_any_model_is_refused_before_it_is_read(model: Path) -> None:
    model.write_bytes(b"")
    os.truncate(model, 2**31)
    with pytest.raises(ModelError, match="larger than all its members may be"):
        Classifier.load(model)


def test_a_member_too_few_or_too_many_is_refused(model: Path, content: Content) -> None:
    assert refusal(model, archive.pack(content | {"run.py": b""})) == "holds 'run.py', which is no part of a model"
    del content["bias.npy"]
    assert refusal(model, archive.pack(content)) == "bias.npy is missing"


@pytest.mark.parametrize("name", ["/etc/bias.npy", "../bias.npy", "sub/../bias.npy", "C:\\bias.npy", "BIAS.NPY"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, model: Path, content: Content) -> None:
    content[name] = content.pop("bias.npy")
    assert "which is no part of a model" in refusal(model, archive.pack(content))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_given_twice_is_refused(model: Path, content: Content) -> None:
    assert refusal(model, zipped(*content.items(), ("bias.npy", b""))) == "holds a member twice"


def test_a_compression_that_is_not_used_here_is_refused(model: Path, content: Content) -> None:
    packed = zipped(*content.items(), compression=zipfile.ZIP_LZMA)
    assert "compressed in a way that is not used here" in refusal(model, packed)


def test_an_uncompressed_zip_is_a_model_too(model: Path, content: Content, single_label: Trained) -> None:
    model.write_bytes(zipped(*content.items(), compression=zipfile.ZIP_STORED))
    assert Classifier.load(model).digest == single_label.classifier.digest


def patched_directory(packed: bytes, name: str, offset: int, value: bytes) -> bytes:
    """The zip with bytes changed in a member's entry of the central directory."""
    entry = packed.rindex(name.encode()) - 46  # an entry's fixed part ends where its name begins
    assert packed[entry : entry + 4] == b"PK\x01\x02"
    return packed[: entry + offset] + value + packed[entry + offset + len(value) :]


def test_an_encrypted_member_is_refused(model: Path, content: Content) -> None:
    packed = patched_directory(archive.pack(content), "bias.npy", 8, b"\x01\x00")
    assert refusal(model, packed) == "bias.npy is encrypted"


def test_a_member_that_declares_too_much_is_refused_before_it_is_read(model: Path, content: Content) -> None:
    content["bias.npy"] = bytes(17 * 2**20)  # a few kilobytes in the file
    packed = archive.pack(content)
    assert len(packed) < 100_000
    assert refusal(model, packed) == "bias.npy is larger than 16,777,216 bytes"


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_member_that_declares_another_size_than_it_has_is_refused(
    difference: int, model: Path, content: Content
) -> None:
    size = struct.pack("<I", len(content["bias.npy"]) + difference)
    packed = patched_directory(archive.pack(content), "bias.npy", 24, size)
    message = refusal(model, packed)
    assert "Bad CRC-32 for file 'bias.npy'" in message or message == "bias.npy is not as large as declared"


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


MANIFESTS: list[tuple[str, object, str]] = [
    ("format", 3, "manifest.json says format 3, this version reads format 2"),
    ("format", None, "manifest.json says format None, this version reads format 2"),
    ("name", "", "manifest.json gives no name"),
    ("name", 7, "manifest.json gives no name"),
    ("task", "regression", "manifest.json gives no task out of single_label and multi_label"),
    ("task", ["single_label"], "manifest.json gives no task out of single_label and multi_label"),
    ("labels", [], "manifest.json gives no labels"),
    ("labels", "abc", "labels in manifest.json is not a list of strings"),
    ("labels", ["a", 1, "b"], "labels in manifest.json is not a list of strings"),
    ("labels", ["a", "b", "a"], "labels in manifest.json holds a string twice"),
    ("labels", ["a", "b"], "weights.npy is not an array of int8 of shape"),
    ("threshold", 1.5, "threshold in manifest.json is not a number from 0 to 1"),
    ("threshold", float("nan"), "threshold in manifest.json is not a number from 0 to 1"),
    ("threshold", "0.5", "threshold in manifest.json is not a number from 0 to 1"),
    ("unheard", -1, "unheard in manifest.json is not a number from 0 to 100"),
    ("least_margin", "0", "least_margin in manifest.json is not a number from -1000 to 1000"),
    ("encoder", 7, "encoder in manifest.json is neither null nor a digest"),
    ("encoder", "0" * 64, "manifest.json and meaning.npy do not agree on whether there is an encoder"),
    ("threshold", True, "threshold in manifest.json is not a number from 0 to 1"),
    ("trained", None, "trained in manifest.json is not a JSON object"),
    ("calibration", [], "calibration in manifest.json is not a JSON object"),
    ("calibration", {}, "calibration in manifest.json does not have the fields curvature, floor, temperature"),
    (
        "calibration",
        {"temperature": 0, "curvature": 0, "floor": 0},
        "temperature in manifest.json is not a number from 1e-06 to 1000000.0",
    ),
    (
        "calibration",
        {"temperature": float("inf"), "curvature": 0, "floor": 0},
        "temperature in manifest.json is not a number from 1e-06 to 1000000.0",
    ),
    (
        "calibration",
        {"temperature": 1, "curvature": -1, "floor": 0},
        "curvature in manifest.json is not a number from 0 to 100",
    ),
    (
        "calibration",
        {"temperature": 1, "curvature": 1, "floor": 2},
        "floor in manifest.json is not a number from 0 to 1",
    ),
    ("surprise", 1, "manifest.json does not have the fields calibration, encoder, format,"),
]


@pytest.mark.parametrize(("field", "value", "problem"), MANIFESTS)
def test_a_manifest_with_a_wrong_field_is_refused(
    field: str, value: object, problem: str, model: Path, content: Content
) -> None:
    manifest = json.loads(content["manifest.json"]) | {field: value}
    content["manifest.json"] = json.dumps(manifest).encode()
    assert refusal(model, archive.pack(content)).startswith(problem)


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("manifest.json", b"", "manifest.json is not JSON"),
        ("manifest.json", b"{", "manifest.json is not JSON"),
        ("manifest.json", b"\xff", "manifest.json is not JSON"),
        ("manifest.json", nested(100_000), "manifest.json is not JSON"),
        ("manifest.json", b"1" * 5_000, "manifest.json is not JSON"),
        ("manifest.json", b"[]", "manifest.json is not a JSON object"),
        ("manifest.json", b"{}", "manifest.json does not have the fields"),
        ("words.json", b'{"a":0}', "words.json is not a list of strings"),
        ("words.json", b'["a",1]', "words.json is not a list of strings"),
        ("words.json", b'["a","a"]', "words.json holds a string twice"),
        ("characters.json", b'["a"]', "characters.npy is not an array of float32 of shape"),
    ],
)
def test_a_wrong_json_member_is_refused(member: str, value: bytes, problem: str, model: Path, content: Content) -> None:
    content[member] = value
    assert refusal(model, archive.pack(content)).startswith(problem)


def weights_of(content: Mapping[str, bytes], member: str) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(io.BytesIO(content[member]), allow_pickle=False)
    return array


def with_first(array: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = array.copy()
    changed.flat[0] = value
    return changed


ARRAYS: list[tuple[str, Callable[[np.ndarray[Any, Any]], bytes], str]] = [
    ("weights.npy", lambda _: b"", "weights.npy is not an array of int8 of shape"),
    (
        "weights.npy",
        lambda _: npy_header("{'descr': __import__('os')}"),
        "weights.npy is not an array of int8 of shape",
    ),
    ("weights.npy", lambda _: npy_header("(" * 9_000), "weights.npy is not an array of int8 of shape"),
    (
        "weights.npy",
        lambda _: npy_header("{'descr': '|i1', 'fortran_order': False, 'shape': (1000000000000, 3), }"),
        "weights.npy is not an array of int8 of shape",
    ),
    ("weights.npy", lambda array: npy(array.astype(np.float32)), "weights.npy is not an array of int8 of shape"),
    ("weights.npy", lambda array: npy(array.astype(">i2")), "weights.npy is not an array of int8 of shape"),
    ("weights.npy", lambda array: npy(array[:-1]), "weights.npy is not an array of int8 of shape"),
    ("weights.npy", lambda array: npy(array.ravel()), "weights.npy is not an array of int8 of shape"),
    ("weights.npy", lambda array: npy(np.asfortranarray(array)), "weights.npy is not an array of int8 of shape"),
    ("weights.npy", lambda array: npy(array, version=(2, 0)), "weights.npy is not an array of int8 of shape"),
    ("weights.npy", lambda array: npy(array)[:-1], "weights.npy is shorter or longer than its shape says"),
    ("weights.npy", lambda array: npy(array) + b"\0\0", "weights.npy is shorter or longer than its shape says"),
    ("scales.npy", lambda array: npy(with_first(array, np.nan)), "scales.npy holds numbers that are not finite"),
    ("bias.npy", lambda array: npy(with_first(array, np.inf)), "bias.npy holds numbers that are not finite"),
    ("words.npy", lambda array: npy(with_first(array, 0.5)), "words.npy holds numbers below 1 or above 100"),
    ("characters.npy", lambda array: npy(with_first(array, 1e38)), "characters.npy holds numbers below 1 or above 100"),
]


@pytest.mark.parametrize(("member", "change", "problem"), ARRAYS)
def test_a_wrong_array_is_refused(
    member: str, change: Callable[[np.ndarray[Any, Any]], bytes], problem: str, model: Path, content: Content
) -> None:
    content[member] = change(weights_of(content, member))
    assert refusal(model, archive.pack(content)).startswith(problem)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_an_array_of_objects_is_refused_and_nothing_in_it_runs(tmp_path: Path, model: Path, content: Content) -> None:
    trace = tmp_path / "trace"
    objects = np.empty(weights_of(content, "weights.npy").shape, object)
    objects.flat[0] = Payload(trace)
    for hostile in (npy(objects, allow_pickle=True), pickle.dumps(Payload(trace))):
        content["weights.npy"] = hostile
        assert refusal(model, archive.pack(content)).startswith("weights.npy ")
        assert not trace.exists()


def test_a_missing_model_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Classifier.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'model.zip'}: cannot be read (No such file or directory); "
        "name the folder or file that `labelstream models train` has written"
    )


@given(position=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_refused_or_harmless(
    position: float, value: bytes, single_label: Trained, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(archive.pack(single_label.content))
    at = int(position * len(damaged))
    damaged[at : at + len(value)] = value
    model = tmp_path_factory.getbasetemp() / "damaged.zip"
    model.write_bytes(damaged)
    try:
        loaded = Classifier.load(model)
    except ModelError:
        return
    assert loaded.digest == single_label.classifier.digest


def test_the_same_content_is_the_same_bytes_whatever_its_order(content: Content) -> None:
    assert archive.pack(content) == archive.pack(dict(reversed(content.items())))


def test_the_digest_tells_contents_apart(content: Content, single_label: Trained) -> None:
    content["bias.npy"] = npy(with_first(weights_of(content, "bias.npy"), 0.25))
    assert Classifier(content).digest != single_label.classifier.digest


def test_a_file_is_replaced_in_one_step_and_leaves_nothing_beside_it(model: Path) -> None:
    archive.write(model, b"old")
    with model.open("rb") as reader:
        archive.write(model, b"new")
        assert reader.read() == b"old"
    assert model.read_bytes() == b"new"
    assert list(model.parent.iterdir()) == [model]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(model: Path) -> None:
    model.mkdir()
    with pytest.raises(IsADirectoryError):
        archive.write(model, b"new")
    assert list(model.parent.iterdir()) == [model]
