# SPDX-License-Identifier: MIT
"""Many sequences at once, and sequences as bytes."""

import unittest

import numpy as np
import sofattn
from support import SEED

SPARSE = dict(method="best_keys", count=30, sinks=2, recent=3, dense_below=40)


class Batches(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def numbers(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def sequence(self, pool, tokens):
        s = sofattn.Sequence(pool)
        for layer in range(pool.layers):
            s.append(
                layer,
                self.numbers(pool.kv_heads, tokens, pool.qk_dim),
                self.numbers(pool.kv_heads, tokens, pool.v_dim),
            )
        return s

    def test_each_sequence_has_the_bits_that_it_has_alone(self):
        for dtype in ("float32", "float16", "bfloat16"):
            one = sofattn.KVPool(
                pages=300, page_tokens=8, qk_dim=16, kv_heads=2, layers=2, coded_from=32, dtype=dtype
            )
            two = sofattn.KVPool(pages=80, qk_dim=24, v_dim=8, dtype=dtype, layers=2)
            sequences = [self.sequence(one, int(self.rng.integers(1, 300))) for _ in range(6)]
            sequences += [self.sequence(two, 2500), sequences[0], sequences[1].fork()]
            queries = [
                self.numbers(s.pool.kv_heads * 2, min(len(s), int(self.rng.integers(1, 8))), s.pool.qk_dim)
                for s in sequences
            ]
            for how in (dict(), dict(mask="none"), SPARSE):
                alone = [s.attend(1, q, **how) for s, q in zip(sequences, queries)]
                for threads in (1, 3):
                    together = sofattn.attend_batch(sequences, 1, queries, threads=threads, **how)
                    self.assertEqual(len(together), len(alone))
                    for a, b in zip(alone, together):
                        np.testing.assert_array_equal(a, b)
            rows = sofattn.attend_batch(
                sequences, 0, queries, return_sums=True, return_selected=True, return_dropped=True, **SPARSE
            )
            for s, q, r in zip(sequences, queries, rows):
                expected = s.attend(
                    0, q, return_sums=True, return_selected=True, return_dropped=True, **SPARSE
                )
                for name in (
                    "output", "row_max", "row_sum", "selected", "selected_counts", "dropped_mass"
                ):
                    np.testing.assert_array_equal(getattr(r, name), getattr(expected, name))

    def test_the_sequence_that_is_wrong_is_named(self):
        pool = sofattn.KVPool(pages=20, qk_dim=16)
        sequences = [self.sequence(pool, 20) for _ in range(3)]
        queries = [self.numbers(1, 1, 16) for _ in sequences]
        sofattn.attend_batch(sequences, 0, queries)
        with self.assertRaisesRegex(ValueError, r"sequences\[1\]\.q\.shape"):
            sofattn.attend_batch(sequences, 0, [queries[0], self.numbers(1, 1, 8), queries[2]])
        bad = self.numbers(1, 1, 16)
        bad[0, 0, 3] = np.nan
        with self.assertRaisesRegex(ValueError, r"sequences\[2\]\.query\.data.*not_finite"):
            sofattn.attend_batch(sequences, 0, [*queries[:2], bad], check_finite=True)
        sequences[1].extend(1)
        with self.assertRaisesRegex(ValueError, r"sequences\[1\]\.written tokens"):
            sofattn.attend_batch(sequences, 0, queries)
        for arguments, problem, text in (
            ((sequences, 0, queries[:2]), ValueError, r"len\(queries\)"),
            (([*sequences[:2], pool], 0, queries), TypeError, r"sequences\[2\]"),
            ((sequences, 0, [*queries[:2], 3]), TypeError, r"queries\[2\]"),
            ((sequences, 0, 3), TypeError, "queries"),
            ((sequences, 7, queries), ValueError, "layer"),
            (([], 0, []), ValueError, "sequences is 0"),
        ):
            with self.assertRaisesRegex(problem, text):
                sofattn.attend_batch(*arguments)
        with self.assertRaisesRegex(ValueError, "method"):
            sofattn.attend_batch(sequences, 0, queries, method="listed")


class Exports(unittest.TestCase):
    setUp, numbers, sequence = Batches.setUp, Batches.numbers, Batches.sequence

    def test_what_comes_back_is_the_same_and_goes_on_alike(self):
        layout = dict(qk_dim=16, v_dim=8, kv_heads=2, layers=2, coded_from=32)
        for dtype in ("float32", "float16", "bfloat16"):
            pool = sofattn.KVPool(pages=60, page_tokens=8, dtype=dtype, **layout)
            other = sofattn.KVPool(pages=30, page_tokens=16, dtype=dtype, **layout)
            for tokens in (1, 31, 100):
                s, back = self.sequence(pool, tokens), self.sequence(other, 5)
                data = s.export_bytes()
                for given in (data, bytearray(data), np.frombuffer(data, dtype=np.uint8)):
                    back.import_bytes(given)
                    self.assertEqual(back.export_bytes(), data)
                k, v, q = self.numbers(2, 30, 16), self.numbers(2, 30, 8), self.numbers(4, 2, 16)
                for layer in range(2):
                    s.append(layer, k, v)
                    back.append(layer, k, v)
                    np.testing.assert_array_equal(
                        s.attend(layer, q, **SPARSE), back.attend(layer, q, **SPARSE)
                    )
                self.assertEqual(back.export_bytes(), s.export_bytes())

    def test_damaged_and_foreign_bytes_change_nothing(self):
        pool = sofattn.KVPool(pages=60, qk_dim=16)
        s, into = self.sequence(pool, 50), self.sequence(pool, 7)
        data = s.export_bytes()
        before = into.export_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        for bad in (b"", data[:-1], data + b"x", bytes(flipped), b"no export" * 100):
            with self.assertRaisesRegex(ValueError, "foreign_data"):
                into.import_bytes(bad)
        other = sofattn.Sequence(sofattn.KVPool(pages=60, qk_dim=24))
        with self.assertRaisesRegex(ValueError, "qk_dim is 16.*mismatch"):
            other.import_bytes(data)
        for no_bytes in (None, "text", np.zeros((4, 4))[:, ::2]):
            with self.assertRaisesRegex(TypeError, "data"):
                into.import_bytes(no_bytes)
        with self.assertRaises(sofattn.PoolFull):
            sofattn.Sequence(sofattn.KVPool(pages=1, page_tokens=8, qk_dim=16)).import_bytes(data)
        self.assertEqual(into.export_bytes(), before)
        s.extend(1)
        with self.assertRaisesRegex(ValueError, "written tokens"):
            s.export_bytes()


if __name__ == "__main__":
    unittest.main()
