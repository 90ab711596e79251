# SPDX-License-Identifier: MIT
"""Keys and values as int8 codes with scales: the oracle's on code * scale, and refusals by name."""

import unittest

import numpy as np
import sofattn
from support import SEED, Problem, coded, oracle, scattered, stored, visible


class Int8(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def scattered_scales(self, x):
        """In rows that are apart, or backwards."""
        room = np.zeros((x.shape[0], x.shape[1] * 2), dtype=np.float32)
        view = room[:, :: 2 if self.rng.random() < 0.5 else -2]
        view[...] = x
        return view

    def coded(self, p):
        """Arguments that say p's keys and values in codes, and the numbers that these stand for."""
        (k, k_scales), (v, v_scales) = coded(p.k), coded(p.v)
        told = dict(
            k=scattered(k, self.rng),
            v=scattered(v, self.rng),
            k_scales=self.scattered_scales(k_scales),
            v_scales=self.scattered_scales(v_scales),
        )
        return told, k * k_scales[..., None], v * v_scales[..., None]

    def test_dense_is_the_oracles_on_code_times_scale(self):
        for trial in range(60):
            p = Problem(self.rng)
            told, k, v = self.coded(p)
            q = stored(p.q, ("float32", "float16", "bfloat16")[trial % 3])
            mask = (
                dict(mask="none"),
                dict(mask="causal"),
                dict(mask="window", window=int(self.rng.integers(1, p.keys + 1))),
                dict(mask="prefix", prefix=int(self.rng.integers(0, p.keys + 1))),
            )[trial % 4]
            if trial % 3 == 2:
                told["dtype"] = "bfloat16"
            with self.subTest(trial=trial, **mask):
                expected, _, _ = oracle(q, k, v, visible(p.queries, p.keys, **mask))
                found = sofattn.attention(q, **told, **mask, threads=2)
                np.testing.assert_allclose(found, expected, atol=2e-5)

    def test_listed_keys_and_short_sequences(self):
        p = Problem(self.rng)
        told, k, v = self.coded(p)
        lists = np.arange(p.keys, dtype=np.int32)[None, None].repeat(p.queries, axis=1)
        expected, _, _ = oracle(p.q, k, v, visible(p.queries, p.keys))
        for how in (
            dict(method="listed", lists=lists),
            dict(method="best_keys"),
            dict(method="pages", mass=0.9),
        ):
            np.testing.assert_allclose(
                sofattn.attention(p.q, **told, **how), expected, atol=2e-5
            )

    def rows(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def cached(self, k, v, **layout):
        """A sequence of a pool in int8, written in parts of any length."""
        pool = sofattn.KVPool(
            pages=200,
            page_tokens=int(self.rng.integers(10, 40)),
            kv_heads=k.shape[0],
            qk_dim=k.shape[2],
            v_dim=v.shape[2],
            dtype="int8",
            **layout,
        )
        sequence = sofattn.Sequence(pool)
        first = 0
        while first < k.shape[1]:
            end = first + int(self.rng.integers(1, 500))
            sequence.append(0, k[:, first:end], v[:, first:end])
            first = end
        return sequence

    def test_best_keys_of_arrays_are_those_of_a_cache_with_their_codes(self):
        for keys in (300, 1500, 2100):  # 1024 are widened at a time
            k, v = self.rows(2, keys, 24), self.rows(2, keys, 40)
            (k8, k_scales), (v8, v_scales) = coded(k), coded(v)
            told = dict(
                k=scattered(k8, self.rng),
                v=scattered(v8, self.rng),
                k_scales=self.scattered_scales(k_scales),
                v_scales=self.scattered_scales(v_scales),
            )
            sequence = self.cached(k, v, coded_from=min(keys, 1024))
            for dtype in ("float32", "float16", "bfloat16"):
                q = stored(self.rows(4, 2, 24), dtype)
                more = dict(dtype="bfloat16") if dtype == "bfloat16" else {}
                how = dict(
                    method="best_keys", count=90, dense_below=0, return_selected=True, **more
                )
                found = sofattn.attention(q, **told, **how, threads=2, return_dropped=True)
                cached = sequence.attend(0, q, **how, return_dropped=True)
                np.testing.assert_array_equal(found.selected, cached.selected)
                np.testing.assert_array_equal(found.output, cached.output)
                np.testing.assert_array_equal(found.dropped_mass, cached.dropped_mass)
                self.assertEqual(found.selected.shape, (2, 2, 90))
                # They are attended to as the codes say.
                seen = np.zeros((4, 2, keys), dtype=bool)
                for head in range(4):
                    for at in range(2):
                        seen[head, at, found.selected[head // 2, at]] = True
                expected, _, _ = oracle(
                    q, k8 * k_scales[..., None], v8 * v_scales[..., None], seen
                )
                np.testing.assert_allclose(found.output, expected, atol=2e-5)

    def test_best_keys_take_codes_that_no_cache_would_make(self):
        k = self.rng.integers(-128, 128, (1, 400, 16)).astype(np.int8)
        k[:, ::3] = 0
        v = self.rng.integers(-128, 128, (1, 400, 8)).astype(np.int8)
        k_scales = self.rng.uniform(0, 0.02, (1, 400)).astype(np.float32)
        v_scales = np.full((1, 400), -0.01, dtype=np.float32)
        q = self.rows(2, 1, 16)
        told = dict(k_scales=k_scales, v_scales=v_scales)
        dense = sofattn.attention(q, k, v, **told)
        how = dict(method="best_keys", dense_below=0)
        every = sofattn.attention(q, k, v, **told, **how, count=400)
        np.testing.assert_allclose(every, dense, atol=2e-5)
        some = sofattn.attention(q, k, v, **told, **how, count=40, sinks=0, recent=1)
        self.assertGreater(np.abs(some - dense).max(), 0)

    def test_pages_of_arrays_are_those_of_a_cache(self):
        k, v, q = self.rows(2, 512, 24), self.rows(2, 512, 40), self.rows(4, 512, 24)
        (k8, k_scales), (v8, v_scales) = coded(k), coded(v)
        arrays = dict(k=k8, v=v8, k_scales=k_scales, v_scales=v_scales)
        for products in ("float32", "bfloat16"):
            how = dict(method="pages", products=products, dense_below=0)
            codes = sofattn.prefill_codes(**arrays, method="pages", products=products)
            self.assertEqual(codes.tokens, 512)
            found = sofattn.attention(q, **arrays, **how, mass=0.6)
            again = sofattn.attention(q, **arrays, **how, mass=0.6, codes=codes)
            np.testing.assert_array_equal(found, again)
            # Made at once, codes of 2^i tokens are those that have grown.
            sequence = self.cached(k, v, page_codes=products)
            np.testing.assert_array_equal(sequence.attend(0, q, **how, mass=0.6), found)
            dense = sofattn.attention(q, **arrays)
            everything = sofattn.attention(q, **arrays, **how, mass=1, codes=codes)
            np.testing.assert_allclose(
                everything, dense, atol=1e-4 if products == "float32" else 0.03
            )
            self.assertGreater(np.abs(found - dense).max(), 1e-3)
            other = dict(arrays, k_scales=k_scales.copy())
            with self.assertRaisesRegex(ValueError, "codes is of other arrays"):
                sofattn.attention(q, **other, **how, mass=0.6, codes=codes)

    def test_a_pool_goes_on_after_forks_truncations_and_imports(self):
        k, v, q = self.rows(2, 700, 24), self.rows(2, 700, 16), self.rows(4, 20, 24)
        layout = dict(coded_from=64, page_codes="float32")
        methods = (
            dict(),
            dict(method="best_keys", count=80, dense_below=0),
            dict(method="pages", mass=0.6, dense_below=0),
        )

        def same(a, b):
            for how in methods:
                queries = q if how.get("method") == "pages" else q[:, :2]
                np.testing.assert_array_equal(a.attend(0, queries, **how), b.attend(0, queries, **how))

        whole = self.cached(k, v, **layout)
        twin = whole.fork()
        for stay in (650, 300, 40):
            twin.truncate(stay)
            same(twin, self.cached(k[:, :stay], v[:, :stay], **layout))
        twin.append(0, k[:, 40:], v[:, 40:])
        same(twin, whole)
        back = sofattn.Sequence(self.cached(k[:, :1], v[:, :1], **layout).pool)
        back.import_bytes(whole.export_bytes())
        same(back, whole)
        self.assertEqual(back.export_bytes(), whole.export_bytes())
        back.truncate(600)
        same(back, self.cached(k[:, :600], v[:, :600], **layout))

    def test_a_pool_is_off_by_half_a_scale_at_most(self):
        k, v = self.rows(1, 200, 16), self.rows(1, 200, 16)
        sequence = self.cached(k, v)
        # A query that looks at one key alone reads its value back.
        k[:] = 0
        for at in (0, 77, 199):
            lists = np.full((1, 1, 1), at, dtype=np.int32)
            found = sequence.attend(0, k[:, :1], method="listed", lists=lists)[0, 0]
            half = np.abs(v[0, at]).max() / 127 / 2
            self.assertLessEqual(np.abs(found - v[0, at]).max(), half * 1.0001)
            self.assertGreater(np.abs(found - v[0, at]).max(), 0)

    def test_a_pool_has_its_bytes(self):
        pool = sofattn.KVPool(pages=3, qk_dim=8, v_dim=4, kv_heads=2, layers=5, dtype="int8")
        self.assertEqual((pool.dtype, pool.bytes_per_token), ("int8", 5 * 2 * (8 + 4 + 8)))
        sequence = sofattn.Sequence(pool)
        k = self.rng.standard_normal((2, 9, 8), dtype=np.float32)
        v = self.rng.standard_normal((2, 9, 4), dtype=np.float32)
        for layer in range(5):
            sequence.append(layer, k, v)
        back = sofattn.Sequence(pool)
        back.import_bytes(sequence.export_bytes())
        q = self.rng.standard_normal((4, 2, 8), dtype=np.float32)
        np.testing.assert_array_equal(back.attend(3, q), sequence.attend(3, q))

    def test_refusals(self):
        p = Problem(self.rng)
        told, _, _ = self.coded(p)

        def refused(sentence, kind=ValueError, **changes):
            with self.assertRaisesRegex(kind, sentence):
                sofattn.attention(**{"q": p.q, **told, **changes})

        refused("k_scales is None, must be float32", k_scales=None)
        refused("v_scales is given, must be None but where v is int8", v=p.v)
        refused(r"k_scales.dtype is float64", k_scales=told["k_scales"].astype(np.float64))
        refused(r"v_scales.shape is", v_scales=told["v_scales"][:, 1:])
        refused("k_scales is a list", TypeError, k_scales=[1.0])
        refused("value.type is 0", v=p.v, v_scales=None)
        refused("q.dtype is int8", q=p.q.astype(np.int8))
        if p.queries > 4:
            refused("products is 2", products="int8")
        refused("k.dtype is int8", dense_below=0, method="budget", mass=0.9)
        bad = np.array(told["k_scales"])
        bad[0, 0] = np.nan
        refused(r"key_scales.data\[\] is nan", k_scales=bad, check_finite=True)
        for how in (
            dict(method="best_keys"),
            dict(method="pages", mass=0.9),
            dict(method="pages", mass=0.9, products="bfloat16"),
        ):
            refused("is nan", k_scales=bad, dense_below=0, **how)
        with self.assertRaisesRegex(ValueError, "k_scales is None"):
            sofattn.prefill_codes(told["k"], told["v"])
        with self.assertRaisesRegex(ValueError, "k.dtype is int8"):
            sofattn.prefill_codes(**told)
        codes = np.ones((1, 4, 4), dtype=np.int8)
        out = np.zeros((1, 4, 4), dtype=np.float32)
        of_out = dict(q=out.copy(), k=codes, v=codes, k_scales=out[:, 0], v_scales=out[:, 1].copy())
        refused("out is in memory of k_scales", out=out, **of_out)


if __name__ == "__main__":
    unittest.main()
