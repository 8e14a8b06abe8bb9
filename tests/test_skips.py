import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_that_runs(): pass

@pytest.mark.skip(reason="no moon")
def test_that_is_marked(): pass

def test_that_skips_itself(): pytest.skip("no sun")

@pytest.fixture
def lamp(): pytest.skip("no lamp")

def test_that_needs_a_lamp(lamp): pass

@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_known_to_fail(): assert False
"""


def run(suite: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text("utf-8"), encoding="utf-8")
    (folder / "test_suite.py").write_text(suite, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_ALL_TESTS"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder, folder],
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_skipped_test_is_no_failure_to_a_person(tmp_path: Path) -> None:
    result = run(SUITE, tmp_path)
    assert result.returncode == 0, result.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in result.stdout.splitlines()[-1]


def test_every_skipped_test_is_a_failure_where_all_must_run_and_is_named_last(tmp_path: Path) -> None:
    result = run(SUITE, tmp_path, REQUIRE_ALL_TESTS="1")
    assert result.returncode == 1, result.stdout
    *_, heading, first, second, third, end = result.stdout.strip().splitlines()
    assert "skipped, and so failed" in heading
    assert [line.partition("::")[2] for line in (first, second, third)] == [
        "test_that_is_marked",
        "test_that_skips_itself",
        "test_that_needs_a_lamp",
    ]
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in end
    for reason in ("no moon", "no sun", "no lamp"):
        assert reason in result.stdout


@pytest.mark.parametrize(("environ", "code"), [({}, 5), ({"REQUIRE_ALL_TESTS": "1"}, 2)])
def test_a_module_that_skips_itself_is_a_failure_where_all_must_run(
    tmp_path: Path, environ: dict[str, str], code: int
) -> None:
    result = run("import pytest; pytest.importorskip('no_such_module')", tmp_path, **environ)
    assert result.returncode == code, result.stdout
    assert "no_such_module" in result.stdout or not environ
