"""Takes labels out of shards that are there, as the partition would have left them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pfmsmt.data.schema import SPLITS, UNLABELLED, Schema, read_schema


def take_labels_away(clients: Path, share: float = 0.4) -> Schema:
    """Mask this share of each task's labels in all shards; return the schema, which says so."""
    schema, rng = read_schema(clients / "schema.json"), np.random.default_rng(3)
    counts = {}
    for scenario in schema.scenarios:
        counts[scenario] = {}
        for split in SPLITS:
            path = clients / scenario / f"{split}.parquet"
            table = pq.read_table(path)
            positives, labelled = {}, {}
            for task in schema.tasks:
                labels = np.where(rng.random(table.num_rows) < share, UNLABELLED, table[task.name].to_numpy())
                positives[task.name] = int((labels == 1).sum())
                labelled[task.name] = int((labels != UNLABELLED).sum())
                place = table.schema.get_field_index(task.name)
                table = table.set_column(place, task.name, pa.array(labels, pa.uint8()))
            pq.write_table(table, path)
            held = schema.counts[scenario][split]
            counts[scenario][split] = held.model_copy(update={"positives": positives, "labelled": labelled})
    tasks = tuple(task.model_copy(update={"partial": True}) for task in schema.tasks)
    schema = schema.model_copy(update={"tasks": tasks, "counts": counts, "fingerprint": "p" * 64})
    (clients / "schema.json").write_text(schema.model_dump_json(indent=2), encoding="utf-8")
    return schema
