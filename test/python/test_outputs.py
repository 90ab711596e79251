# SPDX-License-Identifier: MIT
"""Outputs in 16 bits are those in float32, rounded to nearest."""

import unittest

import numpy as np
import sofattn
from support import SEED, Problem, bfloat16, scattered

DTYPES = ("float32", "float16", "bfloat16")
HELD = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def rounded(x, dtype):
    return bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)


class Outputs(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def ways(self, p):
        lists = self.rng.integers(-1, p.keys, (1, p.queries, 5)).astype(np.int32)
        return (
            dict(),
            dict(products="bfloat16"),
            dict(products="int8"),
            dict(method="best_keys", count=40, sinks=1, recent=4, dense_below=0),
            dict(method="budget", mass=0.7, dense_below=0),
            dict(method="pages", mass=0.7, dense_below=0),
            dict(method="listed", lists=lists),
        )

    def test_every_method_rounds_to_what_is_asked_for(self):
        for trial in range(18):
            p = Problem(self.rng, DTYPES[trial % 3])
            for how in self.ways(p):
                expected = sofattn.attention(*p.arrays, **p.told, **how)
                self.assertEqual(expected.dtype, np.float32)
                for dtype in DTYPES:
                    with self.subTest(trial=trial, dtype=dtype, how=list(how.items())[:2]):
                        wanted = rounded(expected, dtype)
                        found = sofattn.attention(*p.arrays, **p.told, **how, out_dtype=dtype)
                        self.assertEqual(found.dtype, HELD[dtype])
                        np.testing.assert_array_equal(found, wanted)
                        more = sofattn.attention(
                            *p.arrays, **p.told, **how, out_dtype=dtype, return_dropped=True
                        )
                        np.testing.assert_array_equal(more.output, wanted)

    def test_out_is_written_where_it_lies_and_nothing_beside_it(self):
        for trial in range(30):
            p = Problem(self.rng)
            dtype = DTYPES[trial % 3]
            wanted = rounded(sofattn.attention(*p.arrays), dtype)
            out = scattered(np.full(wanted.shape, 7, dtype=HELD[dtype]), self.rng)
            room = out
            while room.base is not None:
                room = room.base
            gaps = room == 0
            told = {"out_dtype": "bfloat16"} if dtype == "bfloat16" else {}
            self.assertIs(sofattn.attention(*p.arrays, out=out, **told), out)
            np.testing.assert_array_equal(out, wanted)
            np.testing.assert_array_equal(room[gaps], 0, err_msg=f"trial {trial}")

    def test_uint16_is_bfloat16_where_the_call_says_so(self):
        p = Problem(self.rng, "bfloat16")
        wanted = bfloat16(sofattn.attention(*p.arrays, **p.told))
        out = np.zeros(wanted.shape, dtype=np.uint16)
        np.testing.assert_array_equal(sofattn.attention(*p.arrays, **p.told, out=out), wanted)
        wide = Problem(self.rng)
        out = np.zeros((wide.heads, wide.queries, wide.v_dim), dtype=np.uint16)
        with self.assertRaisesRegex(ValueError, "out.dtype is uint16"):
            sofattn.attention(*wide.arrays, out=out)
        with self.assertRaisesRegex(ValueError, "out.dtype is uint16, must be float16"):
            sofattn.attention(*wide.arrays, out=out, out_dtype="float16")
        self.assertFalse(out.any())

    def test_caches_and_batches_have_them(self):
        for stored in (*DTYPES, "int8"):
            pool = sofattn.KVPool(pages=60, qk_dim=16, v_dim=24, kv_heads=2, dtype=stored)
            sequences = [sofattn.Sequence(pool) for _ in range(3)]
            queries = []
            for tokens, s in zip((1, 70, 1500), sequences):
                k = self.rng.standard_normal((2, tokens, 16), dtype=np.float32)
                v = self.rng.standard_normal((2, tokens, 24), dtype=np.float32)
                s.append(0, k, v)
                queries.append(self.rng.standard_normal((4, 1, 16), dtype=np.float32))
            for how in (dict(), dict(method="best_keys", count=90, dense_below=0)):
                expected = sofattn.attend_batch(sequences, 0, queries, **how)
                for dtype in DTYPES:
                    batch = sofattn.attend_batch(
                        sequences, 0, queries, threads=2, out_dtype=dtype, **how
                    )
                    for s, q, together, e in zip(sequences, queries, batch, expected):
                        alone = s.attend(0, q, out_dtype=dtype, **how)
                        self.assertEqual(alone.dtype, HELD[dtype])
                        np.testing.assert_array_equal(alone, rounded(e, dtype))
                        np.testing.assert_array_equal(together, alone)
            if stored == "bfloat16":
                out = np.zeros((4, 1, 24), dtype=np.uint16)
                wanted = bfloat16(sequences[1].attend(0, queries[1]))
                np.testing.assert_array_equal(sequences[1].attend(0, queries[1], out=out), wanted)

    def test_what_is_too_large_for_float16_is_infinite(self):
        row = np.array([65519, 65520, -65520, 1e30, 2.0**-25, 2.0**-24], dtype=np.float32)
        v = row.reshape(1, 1, -1)
        q = np.zeros((1, 1, 4), dtype=np.float32)
        found = sofattn.attention(q, q, v, out_dtype="float16")
        inf = np.inf
        np.testing.assert_array_equal(found[0, 0], [65504, inf, -inf, inf, 0, 2.0**-24])


if __name__ == "__main__":
    unittest.main()
