from service.model.examples import Example
from service.model.suggest import suggest
from tests.model.conftest import multi_label_rows, single_label_rows


def test_a_label_that_was_put_to_the_wrong_text_is_found() -> None:
    rows = single_label_rows()
    wrong = rows[3]._replace(labels=("login",))
    found = suggest([*rows[:3], wrong, *rows[4:]], "single_label")
    assert found.documents == len(rows)
    first = found.doubts[0]
    assert (first.id, first.given, first.likelier) == (wrong.id, ("login",), ("billing",))
    assert first.score > 0.3


def test_a_label_that_is_missing_among_several_is_found() -> None:
    rows = multi_label_rows()
    number = next(number for number, row in enumerate(rows) if len(row.labels) == 2)
    lacking = rows[number]._replace(labels=rows[number].labels[:1])
    found = suggest([*rows[:number], lacking, *rows[number + 1 :]], "multi_label")
    doubt = next(doubt for doubt in found.doubts if doubt.id == lacking.id)
    assert (doubt.given, doubt.likelier) == (lacking.labels, rows[number].labels)


def test_classes_of_the_same_words_are_confused() -> None:
    rows = [
        Example(str(number), f"{('pay', 'pay', 'call')[number % 3]} me {number // 3}", ("abc"[number % 3],))
        for number in range(90)
    ]
    pair = suggest(rows, "single_label").confused[0]
    assert (pair.one, pair.other) == ("a", "b")
    assert pair.rows >= 15


def test_classes_with_too_few_rows_are_named_the_smallest_first() -> None:
    rows = [Example(str(n), f"word {n} {label}", (label,)) for n, label in enumerate("a" * 25 + "b" * 8 + "c" * 3)]
    assert [(few.name, few.rows) for few in suggest(rows, "single_label").few] == [("c", 3), ("b", 8)]


def test_rows_to_measure_on_that_are_nearly_among_those_to_learn_from_are_found() -> None:
    rows = single_label_rows()
    same = Example("same", f"{rows[5].text.upper()}!", rows[5].labels)
    other = Example("other", "something that nobody has asked so far", ("login",))
    (alike,) = suggest(rows, "single_label", [same, other]).alike
    assert (alike.measured, alike.learnt) == ("same", rows[5].id)
    assert alike.likeness > 0.9


def test_what_is_suggested_holds_no_text() -> None:
    rows = single_label_rows()
    said = str(suggest(rows, "single_label", [rows[0]._replace(id="copy")]).to_json())
    assert "copy" in said
    assert not [row.text for row in rows if row.text in said]
