"""Sites that keep their rows agree on one schema, by proposals.

A proposal describes a site's training rows: the columns, how many rows each category of a federated field has, and
count, mean and spread of each number. Of private fields it holds the names alone, and of no number a single row's
value, unless the column is constant. It leaves the site, so it is a file that can be looked at before.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.prepare.fields import FieldLearner, Fields, FieldSummary
from pfmsmt.data.schema import CategoricalField, NumericalField, Schema, SplitCounts, Task
from pfmsmt.data.sources.base import Columns
from pfmsmt.data.statistics import MomentState


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rules(_Frozen):
    """Settings of params.yaml that must be the same everywhere."""

    seed: int
    validation_fraction: float
    min_count: int


class SiteForm(_Frozen):
    """Facts that must be the same everywhere before proposals are combined."""

    source: str
    group: str
    tasks: tuple[Task, ...]
    categorical: tuple[str, ...]
    numerical: tuple[str, ...]
    private: tuple[str, ...]
    text: tuple[str, ...]
    """Categorical columns that are read as text"""
    untyped: bool
    rules: Rules


class Proposal(_Frozen):
    """One site's contribution to the schema."""

    scenario: str
    form: SiteForm
    categories: Mapping[str, tuple[tuple[int | str, ...], tuple[int, ...]]]
    """federated column -> its categories, and the training rows of each"""
    moments: MomentState
    private_text: Mapping[str, bool]


class Agreed(NamedTuple):
    """The shared part of a schema, at the site of one scenario."""

    scenario: str
    categorical: tuple[CategoricalField, ...]
    numerical: tuple[NumericalField, ...]

    def in_place_of(self, own: Fields) -> Fields:
        """Return the agreed fields, with the site's own vocabularies of private ones.

        Raises:
            SchemaError: the site's columns are not the agreed ones.
        """
        for mine, theirs in ((own.categorical, self.categorical), (own.numerical, self.numerical)):
            if [field.name for field in mine] != [field.name for field in theirs]:
                raise SchemaError("the raw data have other columns than were proposed; prepare the site again")
        for field, common in zip(own.categorical, self.categorical, strict=True):
            if field.federated != common.federated or (not field.federated and field.text != common.text):
                raise SchemaError(f"column {field.name} is not as it was proposed; prepare the site again")
        return Fields(self.categorical, self.numerical, own.private)


def make_proposal(
    scenario: str,
    source: str,
    columns: Columns,
    tasks: Sequence[Task],
    private: Sequence[str],
    summary: FieldSummary,
    rules: Rules,
) -> Proposal:
    """Return a site's proposal."""
    form = SiteForm(
        source=source, group=columns.group, tasks=tuple(tasks), categorical=columns.categorical,
        numerical=columns.numerical, private=tuple(sorted(private)), text=columns.text, untyped=columns.untyped,
        rules=rules,
    )  # fmt: skip
    categories = {name: (tuple(values), tuple(rows)) for name, (values, rows) in summary.categories.items()}
    return Proposal(
        scenario=scenario, form=form, categories=categories, moments=summary.moments, private_text=summary.private_text
    )


def agree_on_fields(proposals: Sequence[Proposal]) -> Schema:
    """Combine proposals, in the order given.

    The schema has no counts yet, as no shard is written.

    Raises:
        SchemaError: two sites differ in something that must be the same; both are named, and the value of each.
        DataError: a column whose numbers have no finite deviation.
    """
    first = proposals[0]
    for other in proposals[1:]:
        _compare(first, other)
    form = first.form
    columns = Columns(form.group, form.categorical, form.numerical, text=form.text, untyped=form.untyped)
    learner = FieldLearner(columns, form.private, ())
    for proposal in proposals:
        learner.add_summary(FieldSummary(proposal.categories, proposal.moments, proposal.private_text))
    fields = learner.result(form.rules.min_count)
    categorical = tuple(
        field if field.federated else field.model_copy(update={"text": first.private_text[field.name]})
        for field in fields.categorical
    )
    none: dict[str, SplitCounts] = {}
    return Schema(
        source=form.source, fingerprint="", group=form.group, tasks=form.tasks, categorical=categorical,
        numerical=fields.numerical, private_vocabularies={}, counts={p.scenario: none for p in proposals},
    )  # fmt: skip


def _compare(first: Proposal, other: Proposal) -> None:
    if first.scenario == other.scenario:
        raise SchemaError(f"two sites propose for scenario {first.scenario}")
    pairs = [(name, getattr(first.form, name), getattr(other.form, name)) for name in SiteForm.model_fields]
    pairs += [
        (f"private field {name}: is text", value, other.private_text.get(name))
        for name, value in first.private_text.items()
    ]
    for name, one, two in pairs:
        if one == two:
            continue
        if isinstance(one, tuple) and isinstance(two, tuple):
            one, two = [x for x in one if x not in two] or one, [x for x in two if x not in one] or two
        raise SchemaError(
            f"sites {first.scenario} and {other.scenario} differ in {name}: {_short(one)} and {_short(two)}; "
            "correct one of them, prepare its site again, and agree again"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
