import json
from pathlib import Path

import pytest

from service.model.examples import Example, ExamplesError, hold_out, in_fixed_order, infer_task, parse, read, select


def rows(*lines: bytes | dict[str, object]) -> list[Example]:
    return parse([line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines], "tickets.jsonl")


def example(text: str, *labels: str, split: str | None = None) -> Example:
    return Example(text, text, labels, split)


def test_a_row_has_one_label_or_several_or_none() -> None:
    assert rows(
        {"id": "a", "text": "late", "label": "delivery"},
        {"id": "b", "text": "late and wrong", "labels": ["delivery", "billing", "billing"]},
        {"id": "c", "text": "hello", "labels": [], "split": "test", "lang": "en"},
    ) == [
        Example("a", "late", ("delivery",)),
        Example("b", "late and wrong", ("billing", "delivery")),
        Example("c", "hello", (), "test"),
    ]


def test_a_row_without_an_id_is_known_by_its_line() -> None:
    assert [row.id for row in rows(b"", b'{"text":"a","labels":[]}', b'{"id":7,"text":"b","labels":[]}')] == ["2", "7"]


def test_a_file_may_begin_with_a_byte_order_mark_have_windows_line_ends_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "tickets.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a","label":"x"}\r\n\r\n  \n{"text":"b\xe2\x80\xa8c","label":"y"}')
    assert [(row.text, row.labels) for row in read(path)] == [("a", ("x",)), ("b\u2028c", ("y",))]


def test_half_a_surrogate_pair_in_a_text_is_text() -> None:
    (row,) = rows(rb'{"text":"\ud83d !","labels":["x"]}')
    assert row.text == "\ud83d !"
    assert in_fixed_order([row]) == [row]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text":"a",', "is not JSON (Expecting property name enclosed in double quotes at column 13)"),
        (b'\xff\xfe{"text"', "is not UTF-8; save the file as UTF-8"),
        (b"[" * 100_000, "is JSON beyond what is reasonable"),
        (b'["a"]', "is not a JSON object; write"),
        (b'{"label":"x"}', '"text" must be a string that is not blank; add the text or remove the row'),
        (b'{"text":7,"label":"x"}', '"text" must be a string that is not blank'),
        (b'{"text":" \\n","label":"x"}', '"text" must be a string that is not blank'),
        (b'{"text":"a"}', 'give either "label" or "labels"; a row of no class has "labels": []'),
        (b'{"text":"a","label":"x","labels":["x"]}', 'give either "label" or "labels"'),
        (b'{"text":"a","label":null}', "labels must be strings that are not blank"),
        (b'{"text":"a","labels":"x"}', "labels must be strings that are not blank"),
        (b'{"text":"a","labels":["x",3]}', "labels must be strings that are not blank"),
        (b'{"text":"a","labels":[""]}', "labels must be strings that are not blank"),
        (rb'{"text":"a","label":"\ud800"}', "a label holds half of a surrogate pair; write the label in valid Unicode"),
        (b'{"text":"a","label":"x","split":1}', '"split" must be a string such as "train"'),
        (b'{"text":"a","label":"x","id":true}', '"id" must be a string or a whole number'),
    ],
)
def test_a_bad_row_is_named_by_file_and_line_with_what_to_do(line: bytes, problem: str) -> None:
    with pytest.raises(ExamplesError) as caught:
        rows({"text": "good", "label": "x"}, b"", line)
    assert str(caught.value).startswith(f"tickets.jsonl, line 3: {problem}")


def test_a_file_without_rows_or_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"\n\n")
    with pytest.raises(ExamplesError, match=r"empty\.jsonl: holds no rows; write one JSON object a line"):
        read(path)
    with pytest.raises(ExamplesError, match=r"none\.jsonl: cannot be read \(No such file or directory\); name a file"):
        read(tmp_path / "none.jsonl")


def test_the_task_is_multi_label_as_soon_as_one_row_has_another_number_of_labels_than_one() -> None:
    assert infer_task([example("a", "x"), example("b", "y")]) == "single_label"
    assert infer_task([example("a", "x"), example("b", "x", "y")]) == "multi_label"
    assert infer_task([example("a", "x"), example("b")]) == "multi_label"


def test_a_split_selects_its_rows_and_none_selects_all() -> None:
    all_rows = [example("a", "x", split="train"), example("b", "x", split="test"), example("c", "x")]
    assert select(all_rows, "test") == all_rows[1:2]
    assert select(all_rows, None) == all_rows


def test_a_split_without_rows_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ExamplesError, match=r"no row has the split 'dev' \(there are test, train\)"):
        select([example("a", "x", split="train"), example("b", "x", split="test")], "dev")
    with pytest.raises(ExamplesError, match=r"no row has the split 'dev' \(no row names a split\)"):
        select([example("a", "x")], "dev")


def test_the_fixed_order_depends_on_what_rows_say_alone() -> None:
    some = [example(f"text {number}", "x") for number in range(30)]
    renamed = [row._replace(id=str(number)) for number, row in enumerate(reversed(some))]
    assert [row.text for row in in_fixed_order(some)] == [row.text for row in in_fixed_order(renamed)]


def test_a_fifth_of_each_class_is_held_out_the_same_in_any_order() -> None:
    all_rows = [example(f"{label} {number}", label) for label in ("a", "b", "c") for number in range(40)]
    learn, measure = hold_out(all_rows)
    assert sorted(learn + measure) == sorted(all_rows)
    assert [sum(row.labels == (label,) for row in measure) for label in ("a", "b", "c")] == [8, 8, 8]
    reordered = sorted(all_rows, key=lambda row: row.text[::-1])
    assert sorted(hold_out(reordered)[1]) == sorted(measure)


def test_the_last_row_of_a_label_is_never_held_out() -> None:
    all_rows = [example(f"text {number}", f"rare {number}", "common") for number in range(50)]
    assert hold_out(all_rows)[1] == []
    learn, measure = hold_out([example(f"text {n}", f"label {n // 2}") for n in range(50)])
    assert len(measure) == 10
    assert {row.labels for row in learn} == {(f"label {n}",) for n in range(25)}


def test_rows_of_one_text_are_never_divided() -> None:
    repeated = [Example(str(n), f"text {n % 10}", ("x",)) for n in range(30)]
    contested = [Example(str(n), "contested", ("ab"[n],)) for n in range(2)]
    others = [Example(str(n), f"other {n}", ("ab"[n % 2],)) for n in range(28)]
    learn, measure = hold_out([*repeated, *contested, *others])
    assert len(measure) == 12
    assert not {row.text for row in learn} & {row.text for row in measure}
