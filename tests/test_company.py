"""The suite in several processes: what shares something costly is in one of them."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FILE = """
import os
import pytest

@pytest.mark.parametrize("number", range(5))
def test_it(number, pytestconfig):
    with (pytestconfig.rootpath / "ran").open("a") as ran:
        print(os.path.basename(__file__), os.environ["PYTEST_XDIST_WORKER"], file=ran)
"""


def test_tests_of_a_file_and_those_of_the_broker_are_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text("utf-8"), encoding="utf-8")
    (kafka := tmp_path / "tests" / "kafka").mkdir(parents=True)
    for file in (kafka / "test_chaos.py", kafka / "test_one.py", kafka / "test_two.py", tmp_path / "test_three.py"):
        file.write_text(FILE, encoding="utf-8")
    distributed = ["-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]
    common = ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *distributed, *common],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout
    processes = defaultdict(set)
    for line in (tmp_path / "ran").read_text("utf-8").splitlines():
        name, process = line.split()
        processes[name].add(process)
    assert sorted(map(len, processes.values())) == [1, 1, 1, 1]
    assert processes["test_one.py"] == processes["test_two.py"]
