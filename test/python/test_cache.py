# SPDX-License-Identifier: MIT
"""KV caches: whatever became of a sequence, it attends as one that was written at once."""

import gc
import threading
import unittest

import numpy as np
import sofattn
from support import SEED, oracle, scattered, stored, visible, widened

DTYPES = ("float32", "float16", "bfloat16")


class Model:
    """What a sequence should hold: keys and values of each layer, as they were given."""

    def __init__(self, layers, kv_heads, qk_dim, v_dim):
        self.k = [np.zeros((kv_heads, 0, qk_dim), dtype=np.float32) for _ in range(layers)]
        self.v = [np.zeros((kv_heads, 0, v_dim), dtype=np.float32) for _ in range(layers)]

    def append(self, layer, k, v):
        self.k[layer] = np.concatenate([self.k[layer], k], axis=1)
        self.v[layer] = np.concatenate([self.v[layer], v], axis=1)

    def truncate(self, tokens):
        self.k = [k[:, :tokens] for k in self.k]
        self.v = [v[:, :tokens] for v in self.v]

    def copy(self):
        twin = object.__new__(Model)
        twin.k, twin.v = list(self.k), list(self.v)
        return twin


class Caches(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def numbers(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def test_chunks_by_pages_over_codes_that_grow(self):
        k, v = self.numbers(2, 900, 32), self.numbers(2, 900, 16)
        q = self.numbers(4, 900, 32)
        for products in ("float32", "bfloat16"):
            pool = sofattn.KVPool(
                pages=60, page_tokens=16, kv_heads=2, qk_dim=32, v_dim=16, page_codes=products
            )
            self.assertEqual(pool.page_codes, products)
            sequence = sofattn.Sequence(pool)
            options = dict(method="pages", products=products, dense_below=0)
            outputs = {1: [], 0.6: []}
            first = 0
            for tokens in (300, 1, 599):
                end = first + tokens
                sequence.append(0, k[:, first:end], v[:, first:end])
                for mass, chunks in outputs.items():
                    chunks.append(sequence.attend(0, q[:, first:end], mass=mass, **options))
                first = end
            dense = sofattn.attention(q, k, v)
            found = np.concatenate(outputs[1], axis=1)
            np.testing.assert_allclose(found, dense, atol=1e-4 if products == "float32" else 0.03)
            some = np.concatenate(outputs[0.6], axis=1)
            self.assertGreater(np.abs(some - dense).max(), 1e-3)
            self.assertLess(np.sqrt(np.mean((some - dense) ** 2)) / np.std(dense), 1)
            # Forks and truncations keep them right.
            twin = sequence.fork()
            twin.truncate(300)
            again = twin.attend(0, q[:, :300], mass=0.6, **options)
            np.testing.assert_array_equal(again, outputs[0.6][0])
            other = "bfloat16" if products == "float32" else "float32"
            with self.assertRaises(ValueError):
                sequence.attend(0, q[:, :5], method="pages", products=other, mass=0.5, dense_below=0)
        self.assertIsNone(sofattn.KVPool(pages=1, qk_dim=8).page_codes)

    def test_any_history_gives_what_a_fresh_sequence_gives(self):
        layers, kv_heads, heads, qk_dim, v_dim = 2, 2, 4, 24, 16
        for dtype in (*DTYPES, "int8"):
            layout = dict(
                layers=layers, kv_heads=kv_heads, qk_dim=qk_dim, v_dim=v_dim, dtype=dtype, coded_from=32
            )
            pool = sofattn.KVPool(pages=200, page_tokens=8, **layout)
            alive = [(sofattn.Sequence(pool), Model(layers, kv_heads, qk_dim, v_dim))]
            forked = truncated = full = 0
            for _ in range(250):
                at = int(self.rng.integers(len(alive)))
                sequence, model = alive[at]
                what = self.rng.random()
                if what < 0.6:
                    tokens = int(self.rng.choice([1, 1, 1, 5, 40]))
                    try:
                        for layer in range(layers):
                            k = self.numbers(kv_heads, tokens, qk_dim)
                            v = self.numbers(kv_heads, tokens, v_dim)
                            sequence.append(layer, scattered(k, self.rng), scattered(v, self.rng))
                            model.append(layer, k, v)
                    except sofattn.PoolFull:
                        self.assertEqual(layer, 0)  # the first extends for all
                        full += 1
                        del sequence, model, alive[at]
                        if not alive:
                            alive = [
                                (sofattn.Sequence(pool), Model(layers, kv_heads, qk_dim, v_dim))
                            ]
                elif what < 0.75 and len(sequence) > 0:
                    tokens = int(self.rng.integers(len(sequence) + 1))
                    sequence.truncate(tokens)
                    model.truncate(tokens)
                    truncated += 1
                elif what < 0.85:
                    alive.append((sequence.fork(), model.copy()))
                    forked += 1
                elif len(sequence) > 0:
                    self.attends_like_a_fresh_one(sequence, model, heads, layout)
            self.assertTrue(forked > 5 and truncated > 5, (forked, truncated, full))
            del alive, sequence, model
            gc.collect()
            self.assertEqual(pool.free_pages, pool.pages)

    def attends_like_a_fresh_one(self, sequence, model, heads, layout):
        layer = int(self.rng.integers(layout["layers"]))
        tokens = model.k[layer].shape[1]
        self.assertEqual(
            (sequence.length, len(sequence), sequence.written(layer)), (tokens, tokens, tokens)
        )
        queries = int(self.rng.integers(1, min(tokens, 6) + 1))
        q = self.numbers(heads, queries, layout["qk_dim"])
        fresh = sofattn.Sequence(sofattn.KVPool(pages=64, page_tokens=64, **layout))
        for other in range(layout["layers"]):
            fresh.append(other, model.k[other], model.v[other])
        sparse = dict(method="best_keys", count=20, sinks=2, recent=3, dense_below=0)
        for how in (dict(), dict(mask="none"), sparse):
            np.testing.assert_array_equal(
                sequence.attend(layer, q, threads=2, **how), fresh.attend(layer, q, **how)
            )
        k = stored(model.k[layer], layout["dtype"])
        v = stored(model.v[layer], layout["dtype"])
        expected, _, _ = oracle(q, k, v, visible(queries, tokens))
        np.testing.assert_allclose(sequence.attend(layer, q), expected, atol=2e-5)

    def test_attention_without_a_cache_selects_what_a_cache_does(self):
        k, v, q = self.numbers(2, 1500, 32), self.numbers(2, 1500, 48), self.numbers(4, 1, 32)
        sequence = sofattn.Sequence(sofattn.KVPool(pages=100, kv_heads=2, qk_dim=32, v_dim=48))
        for first in range(0, 1500, 7):
            sequence.append(0, k[:, first : first + 7], v[:, first : first + 7])
        options = dict(method="best_keys", count=100, dense_below=0)
        np.testing.assert_array_equal(
            sequence.attend(0, q, **options), sofattn.attention(q, k, v, **options)
        )
        selection = sequence.attend(0, q, return_selected=True, **options)
        listed = sequence.attend(0, q, method="listed", lists=selection.selected)
        np.testing.assert_array_equal(listed, selection.output)

    def test_what_is_written_is_rounded_to_the_pools_type(self):
        for pooled in (*DTYPES, "int8"):
            for given in DTYPES:
                k, v = (stored(self.numbers(1, 9, 8), given) for _ in range(2))
                told = dict(dtype="bfloat16") if given == "bfloat16" else {}
                sequence = sofattn.Sequence(sofattn.KVPool(pages=1, qk_dim=8, dtype=pooled))
                sequence.append(0, k, v, **told)
                q = self.numbers(1, 1, 8)
                rounded = [stored(widened(x).astype(np.float32), pooled) for x in (k, v)]
                expected, _, _ = oracle(q, *rounded, visible(1, 9))
                np.testing.assert_allclose(sequence.attend(0, q), expected, atol=1e-5)

    def test_a_pool_says_what_it_is_and_has(self):
        pool = sofattn.KVPool(pages=3, page_tokens=4, qk_dim=8, kv_heads=2, layers=5, dtype="float16")
        self.assertEqual((pool.pages, pool.free_pages, pool.page_tokens), (3, 3, 4))
        self.assertEqual((pool.layers, pool.kv_heads, pool.qk_dim, pool.v_dim), (5, 2, 8, 8))
        self.assertEqual((pool.dtype, pool.coded_from), ("float16", 1024))
        self.assertEqual(pool.bytes_per_token, 5 * 2 * 16 * 2)
        sequence = sofattn.Sequence(pool)
        self.assertIs(sequence.pool, pool)
        sequence.extend(5)
        self.assertEqual(pool.free_pages, 1)
        self.assertIn("1 of 3", repr(pool))
        self.assertIn("5 tokens", repr(sequence))

    def test_a_full_pool_changes_nothing(self):
        pool = sofattn.KVPool(pages=2, page_tokens=4, qk_dim=8)
        sequence = sofattn.Sequence(pool)
        k = self.numbers(1, 6, 8)
        sequence.append(0, k, k)
        q = self.numbers(1, 1, 8)
        before = sequence.attend(0, q)
        with self.assertRaises(sofattn.PoolFull) as caught:
            sequence.append(0, k, k)
        self.assertIsInstance(caught.exception, MemoryError)
        self.assertIn("no_free_page", str(caught.exception))
        self.assertEqual(sequence.length, 6)
        np.testing.assert_array_equal(sequence.attend(0, q), before)

    def test_a_refused_append_takes_its_room_back(self):
        pool = sofattn.KVPool(pages=4, page_tokens=4, qk_dim=8)
        sequence = sofattn.Sequence(pool)
        k = self.numbers(1, 6, 8)
        sequence.append(0, k, k)
        bad = k.copy()
        bad[0, 3, 3] = np.nan
        for k_and_v in ((bad, k), (k, bad)):
            with self.assertRaisesRegex(ValueError, "not_finite"):
                sequence.append(0, *k_and_v)
        self.assertEqual((sequence.length, sequence.written(0), pool.free_pages), (6, 6, 2))

    def test_a_pool_lives_as_long_as_its_sequences(self):
        sequence = sofattn.Sequence(sofattn.KVPool(pages=4, qk_dim=8))
        gc.collect()
        k = self.numbers(1, 6, 8)
        sequence.append(0, k, k)
        twin = sequence.fork()
        del sequence
        gc.collect()
        np.testing.assert_allclose(
            twin.attend(0, k[:, -1:]), oracle(k[:, -1:], k, k, visible(1, 6))[0], atol=1e-5
        )

    def test_threads_may_use_one_sequence_and_one_pool(self):
        pool = sofattn.KVPool(pages=400, page_tokens=8, qk_dim=16, coded_from=16)
        common = sofattn.Sequence(pool)
        k = self.numbers(1, 64, 16)
        common.append(0, k, k)
        q = self.numbers(1, 1, 16)
        failures = []

        def work(seed):
            rng = np.random.default_rng(seed)
            try:
                own = common.fork()
                for _ in range(60):
                    row = rng.standard_normal((1, 1, 16), dtype=np.float32)
                    own.append(0, row, row)
                    if rng.random() < 0.3:
                        common.append(0, row, row)
                    if rng.random() < 0.1:
                        common.truncate(64)
                    common.attend(0, q, method="best_keys", count=8, sinks=0, recent=1, dense_below=0)
                    own.attend(0, q, threads=2)
                    len(common)
            except BaseException as e:  # reported by the test's own thread
                failures.append(e)

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        self.assertEqual(failures, [])
        common.truncate(64)
        np.testing.assert_allclose(
            common.attend(0, q), oracle(q, k, k, visible(1, 64))[0], atol=1e-5
        )


if __name__ == "__main__":
    unittest.main()
