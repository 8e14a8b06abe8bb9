from itertools import product

import pytest

from service.model.examples import Example
from service.model.train import Trained, train

ASPECTS = {
    "billing": ["the invoice is wrong", "I was charged twice", "please refund my payment", "which card do you charge"],
    "delivery": ["the parcel is late", "my package got lost", "the courier never came", "track my shipment"],
    "login": ["the password is refused", "I cannot sign in", "reset my account", "the login code is missing"],
}
SETTINGS = ["", "since Monday", "hello,", "again!", "and nobody answers", "on my phone"]


def single_label_rows() -> list[Example]:
    return [
        Example(f"{label} {number}", f"{aspect} {setting}".strip(), (label,))
        for label, aspects in ASPECTS.items()
        for number, (aspect, setting) in enumerate(product(aspects, SETTINGS))
    ]


def multi_label_rows() -> list[Example]:
    pairs = [
        Example(f"{one.id} and {other.id}", f"{one.text} and {other.text}", tuple(sorted({*one.labels, *other.labels})))
        for one, other in zip(single_label_rows(), single_label_rows()[24:], strict=False)
    ]
    nothing = [
        Example(f"greeting {n}", f"good {time}{mark}", ())
        for n, (time, mark) in enumerate(
            product(["morning", "day", "evening", "night"], [".", "!", " to you", " everybody"])
        )
    ]
    return [*single_label_rows(), *pairs, *nothing]


@pytest.fixture(scope="session")
def single_label() -> Trained:
    return train(single_label_rows(), task="single_label", name="tickets")


@pytest.fixture(scope="session")
def multi_label() -> Trained:
    return train(multi_label_rows(), task="multi_label", name="aspects")
