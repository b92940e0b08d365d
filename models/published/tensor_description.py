"""The pickle inside a `.pt` file, read as a description of tensors and never run.

Of the pickle's instructions (protocol 2, as PyTorch writes; Python's `pickletools` documents them) only those are known
that build text, whole numbers, tuples and dictionaries; of the functions it may name, only the three that stand for a
tensor, a parameter and an ordered dictionary, and the names of storage types. None is ever called: each becomes an
inert value here.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...errors import CheckpointError

PROTOCOL_2 = b"\x80\x02"
MAX_TENSORS = 20_000
MAX_INSTRUCTIONS = 1_500_000  # each makes one value at most; a tensor takes about 40
MAX_DIMENSIONS = 8
MAX_LENGTH = 2**40
STORAGE_DTYPES = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64", "LongStorage": "I64",
                  "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL"}
ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
ORDERED_DICT = ("collections", "OrderedDict")
STORAGE_KEY = re.compile(r"[A-Za-z0-9_]{1,40}")


@dataclass(frozen=True)
class Storage:
    """A storage of the archive: element type as safetensors spells it, name of its member, number of elements."""

    dtype: str
    key: str
    num_elements: int


@dataclass(frozen=True)
class TensorDescription:
    """A view into a storage: first element, shape, and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle names; it stands for itself and is never looked up."""

    module: str
    name: str


class Mark:
    """Where a run of values on the stack begins."""


def describe_tensors(description: bytes) -> dict[str, TensorDescription]:
    """Read a pickle as a flat dictionary of tensors.

    Args:
        description: the content of data.pkl.

    Returns:
        name -> tensor, in the order of the file; nothing about the storages has been checked yet.

    Raises:
        CheckpointError: an instruction, name or value that does not belong in one.
    """
    if not description.startswith(PROTOCOL_2):
        raise CheckpointError(f"data.pkl begins with {description[:2]!r}, expected {PROTOCOL_2!r}: a pickle of protocol 2, as PyTorch writes")
    try:
        found = Reader(description).run()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"data.pkl is malformed ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"data.pkl holds a {type(found).__name__}, expected a dictionary of tensors")
    if not 0 < len(found) <= MAX_TENSORS:
        raise CheckpointError(f"data.pkl holds {len(found)} entries, expected 1 to {MAX_TENSORS}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, TensorDescription):
            raise CheckpointError(f"entry {name!r:.80} is a {type(value).__name__}, expected a tensor; a checkpoint holds its tensors "
                                  "in one flat dictionary")
    return found


class Reader:
    """Walks through the instructions with a stack and a memo, as the format defines them."""

    def __init__(self, data: bytes) -> None:
        """Stand before the first instruction, behind the two bytes of the protocol."""
        self.data, self.position = data, len(PROTOCOL_2)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Follow every instruction up to the last.

        Raises:
            CheckpointError: an instruction that is not known here, a name that is not allowed, or too many instructions.
        """
        for _ in range(MAX_INSTRUCTIONS):
            at = self.position
            code = self._take(1)
            if code == b".":
                break
            instruction = INSTRUCTIONS.get(code)
            if instruction is None:
                raise CheckpointError(f"data.pkl: instruction {code!r} at byte {at} does not belong in a description of tensors; "
                                      "the file is refused, nothing of it was run")
            instruction(self)
        else:
            raise CheckpointError(f"data.pkl has more than {MAX_INSTRUCTIONS} instructions, more than {MAX_TENSORS} tensors need")
        if self.position != len(self.data) or len(self.stack) != 1:
            raise CheckpointError("data.pkl is malformed: something is left over at its end")
        return self.stack[0]

    def _take(self, count: int) -> bytes:
        piece = self.data[self.position:self.position + count]
        if len(piece) != count:
            raise CheckpointError("data.pkl ends in the middle of an instruction")
        self.position += count
        return piece

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _line(self) -> str:
        end = self.data.index(b"\n", self.position)
        return self._take(end - self.position + 1)[:-1].decode()

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while not isinstance(self.stack[-1], Mark):
            values.append(self.stack.pop())
        self.stack.pop()
        return values[::-1]

    def name(self) -> None:
        """Push an allowed name."""
        module, name = self._line(), self._line()
        allowed = (module, name) in (REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT) or (module == "torch" and name in STORAGE_DTYPES)
        if not allowed:
            raise CheckpointError(f"data.pkl names {module!r:.80}.{name!r:.80}, which no description of tensors needs; the file is refused, "
                                  "nothing of it was run")
        self.stack.append(Name(module, name))

    def text(self) -> None:
        """Push text in UTF-8."""
        self.stack.append(self._take(self._number("<I")).decode())

    def push(self, value: Any) -> None:
        """Push a value."""
        self.stack.append(value)

    def whole_number(self) -> None:
        """Push a whole number of at most eight bytes."""
        length = self._number("<B")
        if length > 8:
            raise CheckpointError(f"data.pkl holds a number of {length} bytes; at most 8 are read")
        self.stack.append(int.from_bytes(self._take(length), "little", signed=True))

    def tuple_of(self, count: int) -> None:
        """Push the topmost values as a tuple."""
        values = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(values[::-1]))

    def set_items(self, pairs: list[Any]) -> None:
        """Put names and values into the dictionary on top; none may occur twice."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise CheckpointError("data.pkl puts entries into something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise CheckpointError(f"data.pkl: entry {key!r:.80} occurs twice or is not named by text" if isinstance(key, str | int)
                                      else f"data.pkl: an entry is named by a {type(key).__name__}, expected text")
            target[key] = value

    def storage(self) -> None:
        """Replace the tuple on top by the storage that it describes."""
        kind, storage_type, key, _, count = self.stack.pop()
        known = isinstance(storage_type, Name) and storage_type.module == "torch" and kind == "storage"
        if not known or not isinstance(key, str) or not STORAGE_KEY.fullmatch(key) or not is_length(count):
            raise CheckpointError("data.pkl describes a storage in a way that PyTorch does not")
        self.stack.append(Storage(STORAGE_DTYPES[storage_type.name], key, count))

    def call(self) -> None:
        """Replace a name and its arguments by the inert value they stand for."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise CheckpointError("data.pkl calls something that has no name")
        called = (function.module, function.name)
        if called == ORDERED_DICT and arguments == ():
            self.stack.append({})
        elif called == REBUILD_TENSOR:
            self.stack.append(describe(*arguments[:4]))
        elif called == REBUILD_PARAMETER and isinstance(arguments[0], TensorDescription):
            self.stack.append(arguments[0])
        else:
            raise CheckpointError(f"data.pkl calls {function.name} with arguments that do not describe a tensor")

    def attributes(self) -> None:
        """Drop the attributes that a dictionary of tensors carries (the versions of its modules)."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise CheckpointError("data.pkl sets attributes of something that is no dictionary of tensors")


def describe(storage: Any, offset: Any, shape: Any, stride: Any) -> TensorDescription:
    """A tensor from the arguments of its rebuilding, once they are of the right kinds and sizes."""
    plain = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(stride, tuple) and is_length(offset)
    if not plain or len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS or not all(map(is_length, (*shape, *stride))):
        raise CheckpointError("data.pkl describes a tensor with an impossible storage, offset, shape or stride")
    return TensorDescription(storage, offset, shape, stride)


def is_length(value: Any) -> bool:
    """Whether a value is a whole number that an offset, a length or a stride may be."""
    return type(value) is int and 0 <= value <= MAX_LENGTH


INSTRUCTIONS: dict[bytes, Callable[[Reader], None]] = {
    b"c": Reader.name,
    b"X": Reader.text,
    b"K": lambda reader: reader.push(reader._number("<B")),
    b"M": lambda reader: reader.push(reader._number("<H")),
    b"J": lambda reader: reader.push(reader._number("<i")),
    b"\x8a": Reader.whole_number,
    b"N": lambda reader: reader.push(None),
    b"\x88": lambda reader: reader.push(True),
    b"\x89": lambda reader: reader.push(False),
    b"(": lambda reader: reader.push(Mark()),
    b")": lambda reader: reader.push(()),
    b"}": lambda reader: reader.push({}),
    b"\x85": lambda reader: reader.tuple_of(1),
    b"\x86": lambda reader: reader.tuple_of(2),
    b"\x87": lambda reader: reader.tuple_of(3),
    b"t": lambda reader: reader.push(tuple(reader._pop_to_mark())),
    b"s": lambda reader: reader.set_items([reader.stack.pop(-2), reader.stack.pop(-1)]),
    b"u": lambda reader: reader.set_items(reader._pop_to_mark()),
    b"q": lambda reader: reader.memo.__setitem__(reader._number("<B"), reader.stack[-1]),
    b"r": lambda reader: reader.memo.__setitem__(reader._number("<I"), reader.stack[-1]),
    b"h": lambda reader: reader.push(reader.memo[reader._number("<B")]),
    b"j": lambda reader: reader.push(reader.memo[reader._number("<I")]),
    b"Q": Reader.storage,
    b"R": Reader.call,
    b"b": Reader.attributes,
}
