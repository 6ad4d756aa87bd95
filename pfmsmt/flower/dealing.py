"""Gives every scenario's shards to a folder of its own, as they would lie at its site. For trials on one machine."""

import shutil
from pathlib import Path

from pfmsmt.atomic import new_folder, write_text
from pfmsmt.data.schema import read_schema
from pfmsmt.places import CLIENTS, SCHEMA


def deal(shards: Path, server: Path, sites: Path) -> dict[str, Path]:
    """Write `<sites>/<scenario>/data/clients` for every scenario, and the server's schema; return the sites' folders.

    A site gets its own shards, private vocabularies and counts; the server gets no rows and no private vocabulary.

    Raises:
        DataError: there is no schema in `shards`.
    """
    schema = read_schema(shards / SCHEMA.name)
    found = {}
    for scenario in schema.scenarios:
        found[scenario] = sites / scenario
        with new_folder(found[scenario] / CLIENTS) as temporary:
            shutil.copytree(shards / scenario, temporary / scenario)
            write_text(temporary / SCHEMA.name, schema.only(scenario).model_dump_json(indent=2) + "\n")
    write_text(server / SCHEMA, schema.public().model_dump_json(indent=2) + "\n")
    return found
