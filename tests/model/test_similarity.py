import json
from importlib.resources import files

import pytest

from service.model import embeddings
from service.model.similarity import Categories, Category, named

TICKETS = {
    "account_access": "Trouble logging in: forgotten password, locked account, login codes that do not arrive",
    "billing": "Questions about invoices and payments: charged twice, a wrong amount, VAT, direct debit, credit card",
    "cancellation": "The customer wants to cancel an order, a contract or a subscription, or to withdraw from it",
    "delivery": "Where a parcel is: late, lost or damaged shipments, tracking, the courier, a wrong address",
    "product_question": "Questions before buying: features, sizes, compatibility, materials, what is in stock",
    "refund": "The customer asks for money back or when a refund will arrive in the bank account",
    "returns": "Sending goods back: return label, exchange for another size, wrong, faulty or worn item, warranty",
    "technical": "The app or website does not work: errors, crashes, freezes, an update that broke something",
}


def test_a_text_is_like_the_category_whose_words_it_shares() -> None:
    categories = named([("invoice", "A bill for goods or services"), ("receipt", "Proof that something was paid")])
    assert categories.classify("Please find our bill for the services in May attached.") == "invoice"
    assert categories.classify("This is the proof that you have paid.") == "receipt"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("refund", "I was refunded nothing"),
        ("TaxReturn", "my tax papers"),
        ("Rechnung", "zwei Rechnungen"),
        ("発票", "発票です"),
    ],
)
def test_endings_of_words_parts_of_names_and_other_scripts_count(name: str, text: str) -> None:
    assert named([("weather", "rain and sun"), (name, "")]).classify(text) == name


@pytest.mark.parametrize("text", ["", "the and of", "qwertz 12345", "Schöne Grüße aus Rom"])
def test_a_text_that_shares_nothing_is_like_none(text: str) -> None:
    assert named([("invoice", "A bill for goods"), ("receipt", "Proof of payment")]).classify(text) is None


def test_without_categories_nothing_is_like_anything() -> None:
    assert Categories([]).classify("a bill") is None


def test_examples_say_what_a_description_does_not() -> None:
    text, letters = "the courier never rang", Category("a", "letters")
    assert Categories([letters, Category("b", "parcels")]).classify(text) is None
    assert Categories([letters, Category("b", "parcels", ("my courier did not ring the bell",))]).classify(text) == "b"


def tickets_told_right(categories: Categories) -> float:
    """Of sample tickets, the first 100: eight classes, so one in eight is chance."""
    lines = (files("service.samples") / "tickets.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:100]]
    right = [categories.compare(row["text"])[0].name == row["label"] for row in rows]
    return right.count(True) / len(right)


def test_sample_tickets_are_told_apart_by_descriptions_alone_and_better_by_what_they_mean() -> None:
    by_words = tickets_told_right(named(list(TICKETS.items())))
    assert by_words >= 0.5
    assert tickets_told_right(named(list(TICKETS.items()), embeddings.encoder())) >= by_words + 0.05


def test_a_text_that_shares_no_word_is_like_what_means_the_same() -> None:
    described = [("invoice", "A bill for goods or services"), ("animals", "Pets and what they eat")]
    text = "my kitten refuses its breakfast, like the dog"
    assert named(described).classify(text) is None
    assert named(described, embeddings.encoder()).classify(text) == "animals"
    assert named([], embeddings.encoder()).classify(text) is None
