"""What a benchmark reports: figures beside their goals."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One thing measured, and what it should be at least or at most; without a goal it stands beside the others."""

    name: str
    measured: float
    unit: str
    goal: str = ""
    met: bool | None = None


def at_least(name: str, measured: float, unit: str, least: float) -> Figure:
    """A figure that should be so much or more."""
    return Figure(name, measured, unit, f"≥ {least:,g}", measured >= least)


def at_most(name: str, measured: float, unit: str, most: float) -> Figure:
    """A figure that should be so much or less."""
    return Figure(name, measured, unit, f"≤ {most:,g}", measured <= most)
