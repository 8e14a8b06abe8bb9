import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.errors import Misconfigured, ModelError
from service.model import embeddings
from service.model.classifier import Classifier
from service.model.embeddings import DIGEST, Encoder
from service.model.examples import Example
from service.model.train import _shares, train
from tests.model import minilm_graph
from tests.model.conftest import single_label_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    found = embeddings.installed()
    if found is None:
        pytest.skip("the extra `embeddings` is not installed: `labelstream models embeddings`")
    return found


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the extra is not installed."""
    embeddings.encoder.cache_clear()
    monkeypatch.setattr(embeddings, "_PACKAGE", "no_such_package")
    yield
    embeddings.encoder.cache_clear()


def test_texts_of_like_meaning_have_like_vectors(encoder: Encoder) -> None:
    vectors = encoder.encode(["How do I reset my password?", "I forgot my login credentials", "The weather is nice"])
    likeness = vectors @ vectors.T
    assert np.diag(likeness) == pytest.approx(np.ones(3), abs=1e-5)
    assert likeness[0, 1] > 0.5
    assert likeness[0, 2] < 0.2


def test_a_vector_is_the_one_that_was_published(encoder: Encoder) -> None:
    """The first numbers of the example on the model's own page."""
    (vector,) = encoder.encode(["This is an example sentence"])
    assert vector[:4] == pytest.approx([0.0676, 0.0635, 0.0487, 0.0793], abs=1e-4)


def test_a_texts_vector_does_not_depend_on_its_neighbours(encoder: Encoder) -> None:
    texts = [
        "a",
        "the parcel is late again " * 9,
        "",
        "\ud83d half",
        "退款",
        "x" * 10_000,
        *(f"text {n}" for n in range(9)),
    ]
    together = encoder.encode(texts)
    assert together == pytest.approx(np.vstack([encoder.encode([text]) for text in texts]), abs=1e-6)
    assert np.isfinite(together).all()
    assert encoder.encode([]).shape == (0, embeddings.WIDTH)


def test_a_model_by_meaning_is_saved_loaded_and_the_same_bytes(encoder: Encoder, tmp_path: Path) -> None:
    trained = train(single_label_rows(), task="single_label", name="tickets", encoder=encoder)
    again = train(single_label_rows()[::-1], task="single_label", name="tickets", encoder=encoder)
    path = trained.save(tmp_path / "one")
    assert path.read_bytes() == again.save(tmp_path / "other").read_bytes()
    loaded = Classifier.load(path)
    assert loaded.encoder == DIGEST
    unheard = "they debited the amount two times"
    assert loaded.classify([unheard], top=1)[0][0].name == "billing"
    core = train(single_label_rows(), task="single_label", name="tickets")
    assert core.classifier.encoder is None
    assert trained.estimate.accuracy >= core.estimate.accuracy


def test_several_labels_are_found_by_meaning_too(encoder: Encoder) -> None:
    rows = [Example(row.id, row.text, (*row.labels, "any")) for row in single_label_rows()]
    trained = train(rows, task="multi_label", name="tickets", encoder=encoder)
    assert trained.classifier.encoder == DIGEST
    assert trained.estimate.f1_micro > 0.9


def test_a_machine_that_knows_nothing_has_no_say() -> None:
    draw = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[draw.integers(3, size=300)]
    knowing, guessing = np.where(truth, 1.0, -1.0) + draw.normal(0, 0.5, truth.shape), draw.normal(0, 1, truth.shape)
    worse = knowing + draw.normal(0, 0.5, truth.shape)
    for task in ("single_label", "multi_label"):
        assert _shares([knowing, -knowing], truth, task) == [1.0, 0.0]
        assert _shares([knowing, guessing], truth, task)[1] < 0.1
        assert _shares([worse, knowing], truth, task)[1] > 0.5
    assert _shares([knowing], truth, "single_label") == [1.0]


def test_without_the_extra_a_model_that_needs_it_says_how_to_get_it(
    encoder: Encoder, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = train(single_label_rows(), task="single_label", name="x", encoder=encoder).save(tmp_path)
    request.getfixturevalue("lacking")
    with pytest.raises(
        ModelError, match=r"made with the extra `embeddings`.*`labelstream models embeddings` installs it"
    ):
        Classifier.load(path)


@pytest.mark.usefixtures("lacking")
def test_everything_else_does_without_the_extra() -> None:
    assert embeddings.installed() is None
    with pytest.raises(embeddings.NotInstalled, match="no_such_package missing"):
        embeddings.encoder()


def test_weights_that_are_not_those_that_were_published_are_refused(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(encoder, Encoder)
    shutil.copytree(embeddings._folder(), tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x01")
    monkeypatch.setattr(embeddings, "_folder", lambda: tmp_path / "model")
    with pytest.raises(Misconfigured, match=r"model.safetensors is not the file that was published"):
        embeddings.encoder.__wrapped__()


def test_the_graph_is_what_its_program_makes() -> None:
    assert minilm_graph.built() == minilm_graph.FILE.read_bytes()


def test_what_is_installed_is_what_the_package_declares_and_its_notice_is_shipped() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert tuple(declared["embeddings"]) == embeddings.REQUIREMENTS
    assert re.search(r"--hash=sha256:[0-9a-f]{64}\n$", embeddings._WHEEL)
    assert DIGEST in (minilm_graph.FILE.parent / "NOTICE").read_text("utf-8").replace("\n", "")
