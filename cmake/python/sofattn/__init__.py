# SPDX-License-Identifier: MIT
"""Sparse and dense attention on CPUs, for numpy arrays.

Arrays are [head, token, channel]. They are read where they lie: heads and tokens may have any strides, of
any sign; the channels of a token must be neighbours. Elements are float32 or float16; numpy has no
bfloat16, so its bits are uint16, and dtype="bfloat16" says so. Keys and values may also be int8 codes with a
float32 scale per token, k_scales and v_scales. Outputs are float32, or of any of these floats that is asked for.

    >>> out = sofattn.attention(q, k, v)                                         # dense, causal
    >>> out = sofattn.attention(q, k, v, method="budget", output_error=0.01)     # sparse prefill
    >>> out = sofattn.attention(q, k, v, method="pages", mass=0.99, products="bfloat16")     # faster
    >>> pool = sofattn.KVPool(pages=1024, kv_heads=8, qk_dim=128)                # 65536 tokens
    >>> sequence = sofattn.Sequence(pool)
    >>> sequence.append(0, k, v)
    >>> out = sequence.attend(0, q, method="best_keys", count=1024)              # sparse decode
    >>> outs = sofattn.attend_batch([sequence, other], 0, [q, q2], threads=8)    # many sequences

Whatever cannot be done as it is asked for is an exception: TypeError for arguments of another kind,
MemoryError, PoolFull where a cache has no page left, else ValueError with the library's sentence
("sofattn: FIELD is VALUE, must be LIMIT (STATUS)"). Then nothing has been written or changed. The GIL
is released while the library works. Results do not depend on the number of threads.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, Iterable, Literal, Mapping, Optional, Union

from . import _core
from ._core import Attended, PoolFull, PrefillCodes, __version__, instruction_set

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float32]
    Integers = NDArray[numpy.int32]
    # float32, float16, or the bits of bfloat16
    Stored = Union[NDArray[numpy.float32], NDArray[numpy.float16], NDArray[numpy.uint16]]
    Codes = NDArray[numpy.int8]

Mask = Literal["none", "causal", "window", "prefix"]
Method = Literal["dense", "best_keys", "budget", "listed", "pages"]
Products = Literal["float32", "bfloat16", "int8"]
PageProducts = Literal["float32", "bfloat16"]
StorageType = Literal["float32", "float16", "bfloat16", "int8"]
FloatType = Literal["float32", "float16", "bfloat16"]

__all__ = [
    "Attended",
    "KVPool",
    "PoolFull",
    "PrefillCodes",
    "Sequence",
    "__version__",
    "attend_batch",
    "attention",
    "hardware",
    "instruction_set",
    "prefill_codes",
    "version",
]


def version() -> str:
    """Of the library that is loaded, "major.minor.patch"."""
    return __version__


def attention(
    q: Stored,
    k: Union[Stored, Codes],
    v: Union[Stored, Codes],
    *,
    k_scales: Optional[Floats] = None,
    v_scales: Optional[Floats] = None,
    mask: Mask = "causal",
    window: Optional[int] = None,
    prefix: Optional[int] = None,
    scale: Optional[float] = None,
    softcap: Optional[float] = None,
    alibi_slopes: Optional[Floats] = None,
    sink_logits: Optional[Floats] = None,
    method: Method = "dense",
    products: Optional[Products] = None,
    dense_below: Optional[int] = None,
    count: Optional[int] = None,
    sinks: Optional[int] = None,
    recent: Optional[int] = None,
    heads_together: Optional[bool] = None,
    mass: Optional[Union[float, Floats]] = None,
    output_error: Optional[Union[float, Floats]] = None,
    page_loss: Optional[float] = None,
    codes: Optional[PrefillCodes] = None,
    lists: Optional[Integers] = None,
    list_counts: Optional[Integers] = None,
    list_queries_each: Optional[int] = None,
    list_keys_each: Optional[int] = None,
    tile_keys: Optional[int] = None,
    tile_rows: Optional[int] = None,
    part_keys: Optional[int] = None,
    check_finite: bool = False,
    threads: int = 1,
    dtype: Optional[Literal["bfloat16"]] = None,
    out: Optional[Stored] = None,
    out_dtype: Optional[FloatType] = None,
    return_sums: bool = False,
    return_selected: bool = False,
    return_dropped: bool = False,
) -> Union[Stored, Attended]:
    """softmax(scale * q k^T) v, over all keys or those that matter.

    q       [head, query, channel] float32, or of the type of k
    k, v    [kv_head, key, channel] of one type; kv_head divides head (grouped queries); at most 256
            channels, v may have others than q and k. Where both are int8, q is of any type and an element
            is its code times its token's scale: float32 k_scales and v_scales [kv_head, key], any
            strides. "budget" reads such only where it is dense
    returns [head, query, channel of v] of `out_dtype`, or `out` where that is given (any strides with channels
            together, in memory of its own); with return_sums, return_selected or return_dropped an Attended

    out_dtype
            None for the type of `out`, and for float32 without one. 16-bit outputs ("bfloat16" in the bits of
            uint16) are the float32 ones rounded to nearest, ties to even; in float16 numbers from 65520 on
            become infinity. `out` of uint16 is bfloat16 where this, `dtype` or the type of q or k says so

    mask    "causal": the last query stands at the last key. "window": causal, and only the last `window`
            keys. "prefix": causal, but all see the first `prefix` keys. "none": all keys.
    scale   of logits; None for 1 / sqrt(channels of q)
    softcap, alibi_slopes, sink_logits
            logits x become softcap * tanh(x / softcap), then lose a head's slope times the distance of query
            and key; a learned sink is a key of that logit without a value. Arrays are float32 [head].
            "budget" and "pages" have sinks only, "best_keys" and "listed" no slopes, "int8" none of them
    method  "dense"      all keys. `products` of "float32", "bfloat16" or "int8", where there are many queries
            "best_keys"  `count` (2048) keys of each query, of which `sinks` (4) first and `recent` (64) last
                         ones always; a selection for each kv_head, or with heads_together=False for each
                         head. For decode: here keys are copied and coded in every call, see Sequence
            "budget"     as many keys as `output_error` (in spreads of the values) or `mass` (share of
                         the softmax) asks for, a number or float32 [head]; pages of keys with at most `page_loss` (0.003) of the mass
                         are not looked at. For prefill. `codes` saves coding the keys again
            "pages"      all keys of as many pages of 16 as `mass` or `output_error` asks for, with
                         `products` of "float32" or "bfloat16". For prefill, and faster than "budget" at the
                         same error, though it reads more keys. `codes` as there, for the same products
            "listed"     keys that `lists` names: int32 [1, kv_head or head; rows; slot] in C order, with a
                         row for `list_queries_each` (1) queries and an entry for `list_keys_each` (1)
                         keys; -1 and keys that a query does not see are skipped. `list_counts`
                         [list head, row]: slots that are used
            "best_keys", "budget" and "pages" are dense below `dense_below` (2048) keys.
    tile_keys, tile_rows, part_keys
            how dense attention is cut for the caches of a machine, as sofattn-tune measures it: of many queries
            keys of a tile (a multiple of 48 up to 576) and rows of a block (up to 1536), of a few keys of a
            part at least (a multiple of 64 up to 2**20). None: as the library does. Results differ by rounding
    check_finite     refuses NaN and infinity, which takes a pass over all inputs. Else rows of dense
                     attention that see one are unspecified; selections refuse it in q in any case
    threads          that share the work; the caller is one of them
    return_sums      row_max and row_sum [head, query] as well: the softmax's maximum and sum, which
                     merge parts of a context
    return_dropped   dropped_mass [head, query] as well: estimated share of the softmax on keys that a row does
                     not attend to. Of best and listed keys from exact logits of up to 256 keys, unbiased
                     but no bound; of budgets from predicted logits; 0 where attention is dense
    return_selected  selected [kv_head or head, query, slot], ascending, then -1, and selected_counts as
                     well; "best_keys" only. Where attention is dense, none is listed, all are counted
    """
    return _core.attention(locals())


def prefill_codes(
    k: Union[Stored, Codes],
    v: Union[Stored, Codes],
    *,
    k_scales: Optional[Floats] = None,
    v_scales: Optional[Floats] = None,
    method: Literal["budget", "pages"] = "budget",
    products: Optional[Literal["float32", "bfloat16"]] = None,
    dtype: Optional[Literal["bfloat16"]] = None,
) -> PrefillCodes:
    """What method="budget" or "pages" wants to know of keys, for calls that share k and v.

    "pages" has codes for its `products`, None for "float32"; k and v may be int8 with scales there, as
    `attention` says. Holds the arrays, whose numbers must not change from here on. NaN and infinity are
    refused.
    """
    return _core.prefill_codes(k, v, k_scales, v_scales, method, products, dtype)


class KVPool:
    """Memory for keys and values of many sequences, in pages that they take, share and give back.

    All pages are allocated at once. A sequence has codes for method="best_keys" from `coded_from` (1024)
    tokens on; 0 for none, which makes that method dense. With `page_codes` it keeps codes for
    method="pages" with these products, copies of keys and values that grow with it.
    """

    __slots__ = ("_core",)

    def __init__(
        self,
        *,
        pages: int,
        qk_dim: int,
        v_dim: Optional[int] = None,
        kv_heads: int = 1,
        layers: int = 1,
        page_tokens: int = 64,
        dtype: StorageType = "float32",
        coded_from: int = 1024,
        page_codes: Optional[PageProducts] = None,
    ) -> None:
        given = locals()
        del given["self"]
        self._core = _core.Pool(given)

    @property
    def pages(self) -> int:
        """Of page_tokens tokens in all layers."""
        return self._core.pages

    @property
    def free_pages(self) -> int:
        """That no sequence uses."""
        return self._core.free_pages

    @property
    def page_tokens(self) -> int:
        return self._core.page_tokens

    @property
    def bytes_per_token(self) -> int:
        """Of keys and values in all layers, without codes."""
        return self._core.bytes_per_token

    @property
    def layers(self) -> int:
        return self._core.layers

    @property
    def kv_heads(self) -> int:
        return self._core.kv_heads

    @property
    def qk_dim(self) -> int:
        return self._core.qk_dim

    @property
    def v_dim(self) -> int:
        return self._core.v_dim

    @property
    def dtype(self) -> StorageType:
        """Of storage; what is written is rounded to it, in int8 by a scale for each row of a token."""
        return self._core.dtype

    @property
    def coded_from(self) -> int:
        return self._core.coded_from

    @property
    def page_codes(self) -> Optional[PageProducts]:
        return self._core.page_codes

    def __repr__(self) -> str:
        return (
            f"<sofattn.KVPool {self.dtype}, {self.layers} layers of {self.kv_heads} heads, "
            f"{self.free_pages} of {self.pages} pages free>"
        )


class Sequence:
    """The KV cache of one sequence, in all layers of a model.

    A step of decode: in each layer `append` the token's key and value, then `attend`. Every layer must
    have all tokens before `fork`, and a layer its own before `attend`. A thread that changes a sequence
    waits for those that use it.
    """

    __slots__ = ("_core", "_pool")

    def __init__(self, pool: KVPool) -> None:
        if not isinstance(pool, KVPool):
            raise TypeError(f"sofattn: pool is a {type(pool).__name__}, must be a sofattn.KVPool")
        self._pool = pool
        self._core = _core.Sequence(pool._core)

    @property
    def pool(self) -> KVPool:
        return self._pool

    @property
    def length(self) -> int:
        """Tokens, those that are yet to be written included."""
        return self._core.length

    def __len__(self) -> int:
        return self._core.length

    @property
    def code_bytes(self) -> int:
        """Memory of the codes of all layers."""
        return self._core.code_bytes

    def written(self, layer: int) -> int:
        """Tokens of a layer."""
        return self._core.written(layer)

    def append(
        self, layer: int, k: Stored, v: Stored, *, dtype: Optional[Literal["bfloat16"]] = None
    ) -> None:
        """Keys and values of a layer's next tokens, [kv_head, token, channel] in any type but int8.

        The layer that gets them first makes the sequence longer. uint16 arrays are bfloat16 where the pool
        is, or dtype="bfloat16" says so. NaN and infinity are refused.
        """
        self._core.append(layer, k, v, dtype)

    def extend(self, tokens: int) -> None:
        """Room for so many tokens more in all layers, for `write`."""
        self._core.extend(tokens)

    def write(
        self, layer: int, k: Stored, v: Stored, *, dtype: Optional[Literal["bfloat16"]] = None
    ) -> None:
        """As `append`, within what the sequence was extended by."""
        self._core.write(layer, k, v, dtype)

    def truncate(self, tokens: int) -> None:
        """Forgets all tokens but the first `tokens`."""
        self._core.truncate(tokens)

    def fork(self) -> Sequence:
        """Another sequence of the same tokens; memory is shared until one of both writes."""
        twin = object.__new__(type(self))
        twin._pool = self._pool
        twin._core = self._core.fork()
        return twin

    def attend(
        self,
        layer: int,
        q: Stored,
        *,
        mask: Mask = "causal",
        window: Optional[int] = None,
        prefix: Optional[int] = None,
        scale: Optional[float] = None,
        softcap: Optional[float] = None,
        alibi_slopes: Optional[Floats] = None,
        sink_logits: Optional[Floats] = None,
        method: Method = "dense",
        products: Optional[Products] = None,
        dense_below: Optional[int] = None,
        count: Optional[int] = None,
        sinks: Optional[int] = None,
        recent: Optional[int] = None,
        heads_together: Optional[bool] = None,
        mass: Optional[Union[float, Floats]] = None,
        output_error: Optional[Union[float, Floats]] = None,
        page_loss: Optional[float] = None,
        lists: Optional[Integers] = None,
        list_counts: Optional[Integers] = None,
        list_queries_each: Optional[int] = None,
        list_keys_each: Optional[int] = None,
        tile_keys: Optional[int] = None,
        tile_rows: Optional[int] = None,
        part_keys: Optional[int] = None,
        check_finite: bool = False,
        threads: int = 1,
        dtype: Optional[Literal["bfloat16"]] = None,
        out: Optional[Stored] = None,
        out_dtype: Optional[FloatType] = None,
        return_sums: bool = False,
        return_selected: bool = False,
    return_dropped: bool = False,
    ) -> Union[Stored, Attended]:
        """`attention` of q to the keys and values of a layer.

        q is float32 or of the pool's type; the last of its tokens stands at the sequence's last. Arguments
        are those of `sofattn.attention`. method="pages" needs a pool with `page_codes`, of its products;
        method="budget" reads keys in a row and is dense or refused here.
        """
        given = locals()
        del given["self"], given["layer"], given["q"]
        return self._core.attend(layer, q, given)

    def export_bytes(self) -> bytes:
        """The sequence as bytes: keys and values of all layers, codes, checksums.

        The format is that of sofattn/engine/kv_export.hpp. Every layer must have all tokens.
        """
        return self._core.export_bytes()

    def import_bytes(self, data: Union[bytes, bytearray, memoryview, NDArray[Any]]) -> None:
        """Becomes the sequence that was exported, from a pool of the same dtype, layers, heads and channels.

        What it had is given back. It attends and goes on as the other does, to the bit. Bytes that are
        cut off, damaged, of another format or shape are refused, and nothing changes.
        """
        self._core.import_bytes(data)

    def __repr__(self) -> str:
        return f"<sofattn.Sequence of {self.length} tokens>"


def attend_batch(
    sequences: Iterable[Sequence],
    layer: int,
    queries: Iterable[Stored],
    *,
    mask: Mask = "causal",
    window: Optional[int] = None,
    prefix: Optional[int] = None,
    scale: Optional[float] = None,
    softcap: Optional[float] = None,
    alibi_slopes: Optional[Floats] = None,
    sink_logits: Optional[Floats] = None,
    method: Literal["dense", "best_keys"] = "dense",
    products: Optional[Products] = None,
    dense_below: Optional[int] = None,
    count: Optional[int] = None,
    sinks: Optional[int] = None,
    recent: Optional[int] = None,
    heads_together: Optional[bool] = None,
    tile_keys: Optional[int] = None,
    tile_rows: Optional[int] = None,
    part_keys: Optional[int] = None,
    check_finite: bool = False,
    threads: int = 1,
    dtype: Optional[Literal["bfloat16"]] = None,
    out_dtype: Optional[FloatType] = None,
    return_sums: bool = False,
    return_selected: bool = False,
    return_dropped: bool = False,
) -> Union[list[Stored], list[Attended]]:
    """`Sequence.attend` of several sequences at once, queries[i] to the keys of sequences[i].

    They may have any lengths, and be of different pools; threads share all of their work. Each result is
    that of the sequence alone, to the bit. An exception names the sequence that it is about.
    """
    given = locals()
    cores = []
    for at, one in enumerate(sequences):
        if not isinstance(one, Sequence):
            raise TypeError(
                f"sofattn: sequences[{at}] is a {type(one).__name__}, must be a sofattn.Sequence"
            )
        cores.append(one._core)
    del given["sequences"], given["layer"], given["queries"]
    if method not in ("dense", "best_keys"):
        raise ValueError(
            f"sofattn: method is {method!r}, must be one of dense, best_keys (unsupported)"
        )
    for name in ("mass", "output_error", "page_loss", "lists", "list_counts", "list_queries_each"):
        given[name] = None  # of methods that no batch has
    given["list_keys_each"] = given["out"] = None
    return _core.attend_batch(cores, layer, queries, given)


def hardware(
    machine: Union[str, Mapping[str, Any]] = "sofa_28nm",
    workload: Union[str, Mapping[str, Any]] = "llama_7b_layer",
    changes: Optional[Mapping[str, Union[str, int, float, bool]]] = None,
) -> dict[str, Any]:
    """What the SOFA accelerator, or a variant of it, needs for a workload: the report of `sofattn-hw run`.

    machine, workload  a name, a JSON file, or a dict of the fields that differ from those of its
                       "base_name"; `sofattn-hw explain` lists names, fields, units and ranges
    changes            values of fields of either, e.g. {"kept_share": 0.1, "attention.rows_count": 64}
    returns            cycles and stalls of every stage, energy and area of every block, traffic
    """
    try:
        from . import _hardware
    except ModuleNotFoundError as e:
        raise ImportError("sofattn: this build has no hardware report: it takes nlohmann-json") from e

    with tempfile.TemporaryDirectory() as folder:

        def described(what: Union[str, Mapping[str, Any]], name: str) -> str:
            if isinstance(what, str):
                return what
            path = os.path.join(folder, name + ".json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(dict(what), file)
            return path

        assignments = [
            f"{field}={value if isinstance(value, str) else json.dumps(value)}"
            for field, value in (changes or {}).items()
        ]
        return json.loads(
            _hardware.report(
                described(machine, "machine"), described(workload, "workload"), assignments
            )
        )
