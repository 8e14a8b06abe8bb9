from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import Misconfigured, ModelError
from service.server.models import Models


def test_a_model_is_copied_under_the_digest_of_its_content(models: Path, tmp_path: Path) -> None:
    kept = Models(tmp_path)
    added = kept.add(models / "tickets")
    assert kept.add(models / "tickets" / "model.zip").digest == added.digest
    assert [path.name for path in tmp_path.iterdir()] == [added.digest]
    copy = tmp_path / added.digest / "model.zip"
    assert copy.read_bytes() == (models / "tickets" / "model.zip").read_bytes()
    assert Models(tmp_path).has(added.digest)
    assert not Models(tmp_path).has("another")


def test_a_model_is_loaded_once_however_many_ask(models: Path, tmp_path: Path) -> None:
    digest = Models(tmp_path).add(models / "topics").digest
    kept = Models(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        loaded = list(threads.map(lambda _: kept.get(digest), range(32)))
    assert all(one is loaded[0] for one in loaded)
    assert loaded[0].task == "multi_label"


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="nowhere"):
        Models(tmp_path / "kept").add(tmp_path / "nowhere")
    (tmp_path / "model.zip").write_bytes(b"not a zip file")
    with pytest.raises(Misconfigured, match=r"model\.zip: is not a model"):
        Models(tmp_path / "kept").add(tmp_path)
    with pytest.raises(ModelError):
        Models(tmp_path / "kept").get("unknown")


def test_a_model_that_is_removed_is_gone(models: Path, tmp_path: Path) -> None:
    kept = Models(tmp_path)
    digest = kept.add(models / "tickets").digest
    for _ in range(2):  # also where it is gone already
        kept.remove(digest)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ModelError):
            kept.get(digest)
