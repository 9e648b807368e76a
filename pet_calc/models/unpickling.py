"""Reading the data of a torch checkpoint without executing anything that it contains.

A checkpoint of ``torch.save`` is a zip archive with a pickle and the raw bytes of its tensors. A
pickle is a small program that may call any function. This reader gives it tensors, ordered
dictionaries and sets; whatever else it names becomes an inert `Stub` that only remembers what it
was given.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import Any, Final

import torch
from torch import Tensor

from pet_calc.errors import CheckpointError

_STORAGES: Final[dict[str, torch.dtype]] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# no legitimate checkpoint names anything from these; one that does is refused by name
_HOSTILE: Final = frozenset({
    "__builtin__", "_io", "builtins", "commands", "ctypes", "importlib", "io", "marshal",
    "multiprocessing", "nt", "os", "pickle", "posix", "pty", "runpy", "shutil", "socket",
    "subprocess", "sys", "webbrowser",
})  # fmt: skip
# how torch.save began its files until 2020
_OLD_MAGIC: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_HARMLESS_BUILTINS: Final[dict[str, type]] = {"set": set, "frozenset": frozenset}


class Stub:
    """Stands for an object of the file whose class is not known here.

    Attributes
    ----------
    arguments : tuple
        What its constructor was to be called with.
    state : object
        What it was to be restored from; often its dictionary of attributes.
    """

    origin = ""

    def __init__(self, *arguments: object, **_: object) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.arguments = getattr(self, "arguments", ())
        self.state = state

    def __call__(self, *arguments: object, **_: object) -> Stub:
        """Nothing; what the file wants to call stays a stub."""
        return Stub(*arguments)

    def __setitem__(self, key: object, value: object) -> None:
        """Items are not kept."""

    def append(self, value: object) -> None:
        """Items are not kept."""

    def extend(self, values: object) -> None:
        """Items are not kept."""

    def __hash__(self) -> int:
        return id(self)

    def attribute(self, name: str, default: object = None) -> Any:
        """An entry of the state, if that is a dictionary."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            # a new function each time: what the file does to it ends with the file
            return lambda *arguments: _rebuild_tensor(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        top = module.partition(".")[0]
        if top in ("builtins", "__builtin__") and name in _HARMLESS_BUILTINS:
            return _HARMLESS_BUILTINS[name]
        if top in _HOSTILE:
            raise CheckpointError(
                f"a checkpoint must hold data only, but this one asks for {module}.{name}, which "
                f"could run commands; nothing was executed, do not use the file"
            )
        return type("Stub", (Stub,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"a tensor of the checkpoint has an unknown storage {pid!r:.80}")
        data = bytearray(self._archive.read(f"{self._root}data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


class _OldReader(_Reader):
    """Reads one pickle of a file as torch.save wrote it until 2020.

    Tensors have no data ("meta") where `storages` is None: such a file has its numbers behind the
    pickle that asks for them.
    """

    def __init__(self, stream: io.BytesIO, storages: dict[str, Tensor] | None) -> None:
        pickle.Unpickler.__init__(self, stream)
        self.storages = storages
        self.dtypes: dict[str, torch.dtype] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"a tensor of the checkpoint has an unknown storage {pid!r:.80}")
        self.dtypes[key] = dtype
        if self.storages is None:
            return torch.empty(int(size), dtype=dtype, device="meta")
        return self.storages[key]


def _read_old(content: bytes) -> Any:
    """The object in a file of torch.save before 2020: header, pickle, keys, numbers."""
    stream = io.BytesIO(content)
    for _ in range(3):  # magic number, version of the protocol, sizes of the machine
        _OldReader(stream, {}).load()
    begin = stream.tell()
    first = _OldReader(stream, None)
    first.load()
    storages = {}
    for key in _OldReader(stream, {}).load():
        dtype = first.dtypes[key]
        size = int.from_bytes(stream.read(8), "little") * dtype.itemsize
        data = bytearray(stream.read(size))
        if len(data) != size:
            raise CheckpointError("the checkpoint ends within a tensor; it is damaged")
        storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    stream.seek(begin)
    return _OldReader(stream, storages).load()


def _rebuild_tensor(
    flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    if math.prod(size) > flat.numel():
        raise CheckpointError(
            f"a tensor of shape {tuple(size)} must be stored in full, but its storage holds "
            f"{flat.numel()} numbers; the checkpoint is damaged"
        )
    return torch.as_strided(flat, size, stride, offset).clone()


def _read_zip(content: bytes) -> Any:
    """The object in a file of torch.save since 2020, a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickles = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError(
                "a checkpoint must be a file of torch.save (a zip archive with one data.pkl), "
                f"but this archive holds {len(pickles)}"
            )
        return _Reader(archive, pickles[0].removesuffix("data.pkl")).load()


def read_checkpoint(content: bytes) -> dict[str, Any]:
    """The dictionary in a checkpoint file, which may be compressed with gzip.

    Tensors are read; objects of classes unknown here are `Stub`. Nothing of the file is executed.

    Raises
    ------
    CheckpointError
        If the file is no checkpoint, is damaged, or asks for something that could run commands.
    """
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        value = _read_old(content) if content.startswith(_OLD_MAGIC) else _read_zip(content)
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"a checkpoint must be a zip archive as torch.save writes it since 2020: {error}"
        ) from error
    # a damaged or hostile pickle can fail in any way
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint cannot be read ({type(error).__name__}: {error}); it is damaged, or "
            f"was not written by torch.save"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"a checkpoint must hold a dictionary, got {type(value).__name__}; it may be an "
            f"exported model: ask for the .ckpt file that it was made from"
        )
    return value
