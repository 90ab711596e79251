# SPDX-License-Identifier: MIT
"""Sizes of tiles: what they are given to differs by rounding, if at all."""

import unittest

import numpy as np
import sofattn
from support import SEED, Problem


class Tiles(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def test_results_differ_by_rounding_only(self):
        changed = 0
        for trial in range(24):
            p = Problem(self.rng)
            usual = sofattn.attention(*p.arrays, **p.told)
            sizes = dict(
                tile_keys=int(48 * self.rng.integers(1, 13)),
                tile_rows=int(self.rng.integers(1, 1537)),
                part_keys=int(64 * self.rng.integers(1, 17)),
            )
            with self.subTest(trial=trial, **sizes):
                found = sofattn.attention(*p.arrays, **p.told, **sizes)
                np.testing.assert_allclose(found, usual, rtol=0, atol=2e-5 * np.abs(usual).max())
                changed += int(not np.array_equal(found, usual))
        self.assertGreater(changed, 0)

    def test_sequences_and_batches_take_them(self):
        pool = sofattn.KVPool(pages=40, qk_dim=16, kv_heads=2)
        sequence = sofattn.Sequence(pool)
        k = self.rng.standard_normal((2, 700, 16)).astype(np.float32)
        sequence.append(0, k, k)
        q = k[:, -1:].copy()
        usual = sequence.attend(0, q)
        found = sequence.attend(0, q, part_keys=64)
        np.testing.assert_allclose(found, usual, rtol=0, atol=2e-5)
        self.assertFalse(np.array_equal(found, usual))
        np.testing.assert_array_equal(
            sofattn.attend_batch([sequence], 0, [q], part_keys=64)[0], found
        )

    def test_refusals_name_them(self):
        x = np.ones((1, 5, 8), dtype=np.float32)
        for name, field, wrong in (
            ("tile_keys", "tiles.keys is 47", 47),
            ("tile_rows", "tiles.rows is 1537", 1537),
            ("part_keys", "tiles.part_keys is -64", -64),
        ):
            with self.subTest(name=name):
                with self.assertRaisesRegex(ValueError, field):
                    sofattn.attention(x, x, x, **{name: wrong})
        with self.assertRaises(TypeError):
            sofattn.attention(x, x, x, tile_rows=1.5)


if __name__ == "__main__":
    unittest.main()
