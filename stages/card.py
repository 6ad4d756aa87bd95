"""Describe the shards: rows, rates, columns, drift, in tables and pictures."""

from pfmsmt.config import load_config
from pfmsmt.core.console import run_main, say
from pfmsmt.core.layout import CLIENTS, REPORTS, SCHEMA
from pfmsmt.data.card.card import make_card
from pfmsmt.data.schema import read_schema
from pfmsmt.report.card.card_facts import findings
from pfmsmt.report.card.card_page import write_card


def main() -> None:
    """Write reports/data.md, reports/data.html and their pictures."""
    load_config()
    card = make_card(read_schema(SCHEMA), CLIENTS)
    write_card(card, REPORTS)
    for line in findings(card):
        say(f"data: {line}")
    say(f"described the data: {REPORTS / 'data.html'}")


if __name__ == "__main__":
    run_main(main)
