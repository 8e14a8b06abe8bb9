"""`python -m tests.ops.boards` (or `make dashboards`) writes the boards anew, as they are committed."""

from tests.ops.boards.written import BOARDS, FOLDER, text

FOLDER.mkdir(exist_ok=True)
for name in BOARDS:
    (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
