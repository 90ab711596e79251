# SPDX-License-Identifier: MIT
"""Seeded data, an oracle in double precision, and what the tests share."""

import os

import numpy as np

SEED = int(os.environ.get("SOFATTN_TEST_SEED", "20241102"))


def bfloat16(x):
    """The bits of float32 numbers as bfloat16, rounded to nearest even, as uint16."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widened(x):
    """What is stored, as float64."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def coded(x):
    """Codes of rows and their scales, as a cache makes them."""
    x = np.asarray(x, dtype=np.float32)
    most = np.abs(x).max(axis=-1)
    inverse = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    return np.rint(x * inverse[..., None]).astype(np.int8), most / np.float32(127)


def stored(x, dtype):
    if dtype == "int8":  # what codes stand for
        codes, scales = coded(x)
        return codes * scales[..., None]
    return bfloat16(x) if dtype == "bfloat16" else np.asarray(x, dtype=dtype)


def visible(queries, keys, mask="causal", window=0, prefix=0):
    """[query, key] booleans."""
    at = np.arange(keys - queries, keys)[:, None]
    key = np.arange(keys)[None, :]
    if mask == "none":
        return np.ones((queries, keys), dtype=bool)
    seen = key <= at
    if mask == "window":
        seen &= key > at - window
    if mask == "prefix":
        seen |= key < prefix
    return seen


def logits_of(q, k, scale=None):
    """[head, query, key] float64."""
    q, k = widened(q), widened(k)
    k = np.repeat(k, q.shape[0] // k.shape[0], axis=0)
    return (q @ k.swapaxes(1, 2)) * (q.shape[2] ** -0.5 if scale is None else scale)


def oracle(q, k, v, seen, scale=None, softcap=None, alibi_slopes=None, sink_logits=None):
    """Output, row_max and row_sum in float64; `seen` [query, key] or [head, query, key]."""
    s = logits_of(q, k, scale)
    if softcap is not None:
        s = softcap * np.tanh(s / softcap)
    if alibi_slopes is not None:
        at = np.arange(s.shape[2] - s.shape[1], s.shape[2])[:, None]
        s = s - np.abs(at - np.arange(s.shape[2])) * alibi_slopes.astype(np.float64)[:, None, None]
    s = np.where(seen, s, -np.inf)
    m = s.max(axis=-1)
    if sink_logits is not None:
        m = np.maximum(m, sink_logits.astype(np.float64)[:, None])
    base = np.where(np.isfinite(m), m, 0)  # rows without a key are zero
    p = np.exp(s - base[..., None])
    total = p.sum(axis=-1)
    if sink_logits is not None:
        total = total + np.exp(sink_logits.astype(np.float64)[:, None] - base)
    values = np.repeat(widened(v), q.shape[0] // v.shape[0], axis=0)
    return (p @ values) / np.where(total > 0, total, 1)[..., None], m, total


def scattered(x, rng):
    """The same numbers with other strides: axes in another order, gaps, backwards."""
    heads_inside = rng.random() < 0.5
    gap = int(rng.integers(1, 3))
    shape = list(x.shape)
    if heads_inside:
        shape[0], shape[1] = shape[1], shape[0]
    room = np.zeros((shape[0] * gap, shape[1], shape[2] + int(rng.integers(0, 3))), dtype=x.dtype)
    view = room[::gap, :, : x.shape[2]]
    if heads_inside:
        view = view.swapaxes(0, 1)
    if rng.random() < 0.5:
        view = view[::-1]
    if rng.random() < 0.5:
        view = view[:, ::-1]
    view[...] = x
    return view


class Problem:
    """Random queries, keys and values of random shapes."""

    def __init__(self, rng, dtype="float32", most_keys=200, most_queries=None):
        self.dtype = dtype
        self.kv_heads = int(rng.integers(1, 4))
        self.heads = self.kv_heads * int(rng.integers(1, 4))
        self.keys = int(rng.integers(1, most_keys + 1))
        self.queries = int(rng.integers(1, min(self.keys, most_queries or self.keys) + 1))
        self.qk_dim = int(rng.integers(1, 80))
        self.v_dim = int(rng.integers(1, 80))
        self.q = self.numbers(rng, self.heads, self.queries, self.qk_dim)
        self.k = self.numbers(rng, self.kv_heads, self.keys, self.qk_dim)
        self.v = self.numbers(rng, self.kv_heads, self.keys, self.v_dim)

    def numbers(self, rng, *shape):
        return scattered(stored(rng.standard_normal(shape, dtype=np.float32), self.dtype), rng)

    @property
    def arrays(self):
        return self.q, self.k, self.v

    @property
    def told(self):
        """The dtype argument that the arrays need."""
        return {"dtype": "bfloat16"} if self.dtype == "bfloat16" else {}
