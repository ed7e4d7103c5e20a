"""Arrow tables of scans: their schemas, and what is made of rows that the engine gives otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oomstream.schemas.errors import InvalidRequest, InvalidSetting, StoreUnavailable
from oomstream.schemas.groups import FeatureGroup
from oomstream.schemas.types import Kind, ValueType
from oomstream.stores.sql.revision_tables import RevisionForm

if TYPE_CHECKING:
    import pyarrow as pa


def scan_schema(group: FeatureGroup, features: Sequence[str], *, versions: bool = True) -> pa.Schema:
    """Arrow schema of a scan: every value in plain form, with or without source, sequence and ingest time."""
    import pyarrow as pa

    fields = [pa.field(key.name, plain_arrow(key.type)) for key in group.keys]
    ours = ("_event_time", "_source", "_sequence", "_ingest_time") if versions else ("_event_time",)
    fields += [pa.field(name, pa.int64()) for name in ours]
    fields.append(pa.field("_deleted", pa.bool_()))
    by_name = {feature.name: feature.type for feature in group.features}
    return pa.schema(fields + [pa.field(name, plain_arrow(by_name[name])) for name in features])


def has_repeats(columns: Sequence[pa.ChunkedArray[Any]]) -> bool:
    """Whether a row has the same values as the row before it, in all of the columns."""
    from oomstream.schemas.arrow import pc

    same: Any = None
    for column in reversed(columns):  # the last one of a key is the one that changes most
        this, following = column.slice(0, max(0, len(column) - 1)), column.slice(1)
        equal = pc.equal(this, following)
        same = equal if same is None else pc.and_(same, equal)
        if not pc.any(same).as_py():
            return False
    return True


def seek_schema(group: FeatureGroup, features: Sequence[str]) -> pa.Schema:
    """Arrow schema of a seek."""
    import pyarrow as pa

    by_name = {feature.name: feature.type for feature in group.features}
    fields: list[pa.Field[Any]] = [pa.field("_moment", pa.int64()), pa.field("_deleted", pa.bool_())]
    return pa.schema([*fields, *(pa.field(name, plain_arrow(by_name[name])) for name in features)])


def plain_arrow(kind: ValueType) -> pa.DataType:
    """Arrow type of a value in plain form."""
    import pyarrow as pa

    match kind.kind:
        case Kind.BOOLEAN:
            return pa.bool_()
        case Kind.INT | Kind.LONG | Kind.DATE | Kind.TIMESTAMP_MILLIS | Kind.TIMESTAMP_MICROS:
            return pa.int64()
        case Kind.FLOAT | Kind.DOUBLE:
            return pa.float64()
        case Kind.BYTES:
            return pa.binary()
    return pa.string()


def without_values_of_deletes(batch: pa.Table, features: int) -> pa.Table:
    """Null the features of deletes, which the default of a column added later has filled."""
    import pyarrow as pa
    import pyarrow.compute as pc

    deleted = batch.column("_deleted")
    if not features or not pc.any(deleted).as_py():
        return batch
    first = batch.num_columns - features
    for at in range(first, batch.num_columns):
        field = batch.schema.field(at)
        kept = pc.if_else(deleted, pa.scalar(None, field.type), batch.column(at))
        batch = batch.set_column(at, field, kept)
    return batch


def revision_schema(group: FeatureGroup, features: Sequence[str]) -> pa.Schema:
    """Arrow schema of a scan of a revision: every value in plain form."""
    import pyarrow as pa

    by_name = {feature.name: feature.type for feature in group.features}
    keys = [pa.field(key.name, plain_arrow(key.type)) for key in group.keys]
    return pa.schema([*keys, *(pa.field(name, plain_arrow(by_name[name])) for name in features)])


def with_missing(form: RevisionForm, features: Sequence[str]) -> Callable[[pa.Table], pa.Table]:
    """What gives a table the columns of those features that the revision does not have, in their places."""
    import pyarrow as pa

    schema = revision_schema(form.group, features)

    def complete(table: pa.Table) -> pa.Table:
        columns: list[pa.ChunkedArray[pa.Scalar[pa.DataType]] | pa.Array[pa.Scalar[pa.DataType]]] = []
        for at, field in enumerate(schema):
            if at >= len(form.keys) and field.name in form.missing:
                columns.append(pa.repeat(pa.scalar(form.missing[field.name], field.type), table.num_rows))
            else:
                columns.append(table.column(field.name))
        return pa.Table.from_arrays(columns, schema=schema)

    return complete if any(name in form.missing for name in features) else lambda table: table


@contextmanager
def telling_changes(form: RevisionForm) -> Iterator[None]:
    """A table of a user's may have been changed after it was linked, and one of ours dropped since its row was read.

    Raises:
        InvalidRequest: A value is not of its feature's type.
        StoreUnavailable: The table is gone.
    """
    import pyarrow as pa

    try:
        yield
    except InvalidSetting as exc:  # what a missing table means elsewhere
        raise StoreUnavailable(f"table {form.name} of group {form.group.name} is gone: do it again") from exc
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError, OverflowError):
        # Without its cause, which shows the value.
        raise InvalidRequest(
            f"table {form.name}, a revision of group {form.group.name}, holds a value that is not of its column's type"
        ) from None
