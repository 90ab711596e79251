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
        for how in (dict(method="budget", mass=0.9), dict(method="pages", mass=0.9)):
            refused("k.dtype is int8", dense_below=0, **how)
        refused("k.dtype is int8", dense_below=0, method="best_keys")
        bad = np.array(told["k_scales"])
        bad[0, 0] = np.nan
        refused(r"key_scales.data\[\] is nan", k_scales=bad, check_finite=True)
        with self.assertRaisesRegex(ValueError, "[kv].dtype is int8"):
            sofattn.prefill_codes(told["k"], told["v"])
        codes = np.ones((1, 4, 4), dtype=np.int8)
        out = np.zeros((1, 4, 4), dtype=np.float32)
        of_out = dict(q=out.copy(), k=codes, v=codes, k_scales=out[:, 0], v_scales=out[:, 1].copy())
        refused("out is in memory of k_scales", out=out, **of_out)


if __name__ == "__main__":
    unittest.main()
