"""Public data that the embedded model is measured on, by its own splits, and categories that are made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.model.examples import Example, read, select

DATA = Path(__file__).parents[3] / "shared" / "data"


def rows(name: str, split: str) -> list[Example]:
    """A set's rows of one split."""
    return select(read(DATA / f"{name}.jsonl"), split)


def of_language(language: str, split: str) -> list[Example]:
    """The rows of SIB-200 in one language, such as `eng_Latn`."""
    return [row for row in rows("sib200_13langs", split) if row.id.split("-")[1] == language]


def languages() -> Iterator[str]:
    """The languages that SIB-200 is there in."""
    yield from sorted({row.id.split("-")[1] for row in rows("sib200_13langs", "test")})


class PublicCategory(NamedTuple):
    """One category among the rows of a set: whatever has one of its labels."""

    source: str
    labels: str
    language: str = ""

    def rows(self, split: str) -> tuple[list[str], list[str]]:
        """The texts that belong to it, and those that do not."""
        of = of_language(self.language, split) if self.language else rows(self.source, split)
        labels = set(self.labels.split())
        return (
            [row.text for row in of if labels.intersection(row.labels)],
            [row.text for row in of if not labels.intersection(row.labels)],
        )


CATEGORIES = {
    "spam": PublicCategory("sms_spam", "spam"),
    "travel": PublicCategory(
        "clinc150_small",
        "translate travel_alert travel_notification travel_suggestion timezone vaccines book_flight book_hotel "
        "car_rental carry_on exchange_rate flight_status international_visa lost_luggage plug_type",
    ),
    "credit cards": PublicCategory(
        "clinc150_small",
        "replacement_card_duration expiration_date damaged_card improve_credit_score report_lost_card card_declined "
        "credit_limit_change apr redeem_rewards credit_limit rewards_balance application_status credit_score new_card "
        "international_fees",
    ),
    "lost card": PublicCategory("banking77", "lost_or_stolen_card"),
    "cooking": PublicCategory(
        "clinc150_small",
        "recipe cook_time calories nutrition_info ingredients_list ingredient_substitution food_last meal_suggestion",
    ),
    "health": PublicCategory("sib200_13langs", "health", "eng_Latn"),
}
