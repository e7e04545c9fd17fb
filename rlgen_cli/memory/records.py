"""Trees of tensors as rows of bytes, so that all fields of many rows are read or written by one call."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlgen_cli.core.bits import byte_table, pack_bits, unpack_bits
from rlgen_cli.core.tree import leaves, map_tensors

WORD = torch.int64  # in which wide records are moved
WIDE = 256  # bytes from which a record is a whole number of words: at most 3 % more


class Column(NamedTuple):
    """Where a tensor of the tree lies in a record."""

    dtype: torch.dtype
    shape: tuple[int, ...]  # of a row
    place: int  # in numbers of this type from the record's start; of a bool, in bits from the end of all numbers
    size: int  # numbers a row


class Records:
    """Rows of trees of tensors, each a record of bytes, exact to the bit: numbers as they are, the widest types first,
    so that each type is aligned; then a bit for every bool.

    Args:
        example: a tree of the same types and shapes, any number of rows.
        rows: how many records there is room for; they begin as zeros.
    """

    def __init__(self, example: Any, rows: int) -> None:
        fields = list(leaves(example))
        self.example, self.device = map_tensors(lambda field: field[:0], example), fields[0].device
        self.number_bytes = self.bits = 0
        columns = {}
        for i in sorted(range(len(fields)), key=lambda i: -fields[i].element_size()):
            dtype, shape = fields[i].dtype, fields[i].shape[1:]
            if dtype == torch.bool:
                columns[i] = Column(dtype, tuple(shape), self.bits, shape.numel())
                self.bits += shape.numel()
            else:
                columns[i] = Column(dtype, tuple(shape), self.number_bytes // dtype.itemsize, shape.numel())
                self.number_bytes += shape.numel() * dtype.itemsize
        self.columns = [columns[i] for i in range(len(fields))]  # in the tree's order
        self.bit_bytes = -(-self.bits // 8)
        self.width = self.number_bytes + self.bit_bytes
        if self.width >= WIDE:
            self.width += -self.width % WORD.itemsize
        widest = max(column.dtype.itemsize for column in self.columns)
        self.margin = -self.width % widest  # bytes to the next row in which every type would be aligned
        self.table = byte_table(torch.arange(2, dtype=torch.uint8, device=self.device), 1)
        self.bytes = torch.zeros(rows, self.width, dtype=torch.uint8, device=self.device)
        self.staging: Staging | None = None

    def read(self, rows: Tensor) -> Any:
        """The tree of these rows [K]; its tensors share memory, and few are contiguous."""
        return self._unpack(self._words(self.bytes).index_select(0, rows).view(torch.uint8))

    def read_all(self) -> Any:
        """The tree of all rows, in the way of `read`."""
        return self._unpack(self.bytes)

    def write(self, rows: Tensor, *trees: Any) -> None:
        """Put trees into these rows [K], the first tree into the first of them; all calls bring as many of one size."""
        if self.staging is None:
            self.staging = self._staging(len(trees), len(rows))
        self._words(self.bytes)[rows] = self._words(self._packed(self.staging, *trees))

    def write_all(self, tree: Any) -> None:
        """Put a tree into all rows."""
        self.bytes.copy_(self._packed(self._staging(1, len(self.bytes)), tree))

    def bools(self, rows: Tensor) -> Tensor:
        """All bools of these rows [K], in the tree's order, [K, bits]."""
        return self._bools(self._bit_part(self.bytes).index_select(0, rows))[:, : self.bits]

    def _staging(self, trees: int, rows: int) -> "Staging":
        aligned = torch.zeros(rows, self.width + self.margin, dtype=torch.uint8, device=self.device)
        bools = torch.zeros(rows, 8 * self.bit_bytes, dtype=torch.bool, device=self.device)
        chunks = zip(aligned.chunk(trees), bools.chunk(trees), strict=True)
        return Staging(aligned, bools, [self._fields(*chunk) for chunk in chunks])

    def _packed(self, staging: "Staging", *trees: Any) -> Tensor:
        """Records of trees, one after the other, [K, width]; they stand until the next call."""
        for fields, tree in zip(staging.fields, trees, strict=True):
            for field, value in zip(fields, leaves(tree), strict=True):
                field.copy_(value)
        self._bit_part(staging.aligned).copy_(pack_bits(staging.bools, 1))
        return staging.aligned[:, : self.width]

    def _unpack(self, records: Tensor) -> Any:
        """The tree of records [N, width]."""
        aligned = pad(records, [0, self.margin]) if self.margin else records
        fields = iter(self._fields(aligned, self._bools(self._bit_part(records))))
        return map_tensors(lambda _: next(fields), self.example)

    def _fields(self, aligned: Tensor, bools: Tensor) -> list[Tensor]:
        """The tensors of a tree, in its order, as views of records with their margin, uint8 [N, width + margin], and of
        all its bools, [N, bits or more]."""
        typed = {column.dtype: aligned.view(column.dtype) for column in self.columns if column.dtype != torch.bool}
        typed[torch.bool] = bools

        def field(column: Column) -> Tensor:
            part = typed[column.dtype].narrow(1, column.place, column.size)
            return part if len(column.shape) == 1 else part.view(len(part), *column.shape)

        return [field(column) for column in self.columns]

    def _bit_part(self, records: Tensor) -> Tensor:
        """The bytes of records that hold bits."""
        return records[:, self.number_bytes : self.number_bytes + self.bit_bytes]

    def _bools(self, packed: Tensor) -> Tensor:
        """[N, bits or more], of the bytes that hold them."""
        return unpack_bits(packed, self.table).view(torch.bool)

    def _words(self, records: Tensor) -> Tensor:
        """As what records are moved in."""
        return records.view(WORD) if self.width >= WIDE else records


class Staging(NamedTuple):
    """Room for the records of some trees, one after the other, which are filled field by field."""

    aligned: Tensor  # uint8 [K, width + margin]
    bools: Tensor  # [K, bits or more]
    fields: list[list[Tensor]]  # of each tree, views of these
