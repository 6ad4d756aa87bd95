"""Remarks on data that are no fault, but easily overlooked.

Partition prints them, and the data card shows them.
"""

from collections.abc import Iterator

from pfmsmt.data.schema import Schema, Vocabulary

SHOWN = 5
"""Values that a remark shows of a column."""


def remarks(schema: Schema) -> tuple[str, ...]:
    """Return a line for each oddity of the shards.

    Oddities are labels that are all the same in a shard or are missing, and columns with negative categories.
    """
    return (*_one_class(schema), *_unlabelled(schema), *_negative(schema))


def _one_class(schema: Schema) -> Iterator[str]:
    labels = {task.name: task.label for task in schema.tasks}
    for scenario, splits in schema.counts.items():
        for split, counts in splits.items():
            for task, positives in counts.positives.items():
                if positives in (0, counts.labels(task)):
                    what = f"{labels[task]} is {int(positives > 0)} in all {counts.labels(task):,} rows"
                    lost = "has nothing to learn from" if split == "train" else "has no AUC"
                    yield f"{scenario} {split}: {what}, so {task} {lost}."


def _unlabelled(schema: Schema) -> Iterator[str]:
    for scenario, splits in schema.counts.items():
        for split, counts in splits.items():
            for task in counts.labelled:
                missing = counts.rows - counts.labels(task)
                share = f"{missing:,} of {counts.rows:,} rows"
                yield f"{scenario} {split}: {share} have no label of {task}, and take no part in it."


def _negative(schema: Schema) -> Iterator[str]:
    """Count, and show those of columns that are not private."""
    for field in schema.categorical:
        own = [private[field.name] for private in schema.private_vocabularies.values() if not field.federated]
        found = {entry for vocabulary in (field.vocabulary, *own) for entry in _below_zero(vocabulary)}
        if found:
            shown = ", ".join(map(str, sorted(found, reverse=True)[:SHOWN])) + (", ..." if len(found) > SHOWN else "")
            yield (
                f"{field.name} has {len(found):,} negative categor{'ies' if len(found) > 1 else 'y'}"
                f"{f' ({shown})' if field.federated else ''}, taken as any other; do they stand for missing values?"
            )


def _below_zero(vocabulary: Vocabulary) -> Iterator[int]:
    """Yield the negative entries; they come first, as vocabularies are sorted."""
    for entry in vocabulary:
        if isinstance(entry, str) or entry >= 0:
            return
        yield entry
