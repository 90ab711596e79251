# SPDX-License-Identifier: MIT
"""sofattn.attention against an oracle in double precision, over random shapes, types and strides."""

import os
import resource
import unittest

import numpy as np
import sofattn
from support import SEED, Problem, logits_of, oracle, scattered, visible

DTYPES = ("float32", "float16", "bfloat16")


class Attention(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def masks(self, p):
        return [
            dict(mask="none"),
            dict(mask="causal"),
            dict(mask="window", window=int(self.rng.integers(1, p.keys + 1))),
            dict(mask="prefix", prefix=int(self.rng.integers(0, p.keys + 1))),
        ]

    def test_dense_is_the_oracles_for_any_shape_mask_type_and_strides(self):
        for trial in range(60):
            p = Problem(self.rng, DTYPES[trial % 3])
            for mask in self.masks(p):
                with self.subTest(trial=trial, **mask):
                    expected, row_max, row_sum = oracle(
                        *p.arrays, visible(p.queries, p.keys, **mask)
                    )
                    found = sofattn.attention(*p.arrays, **mask, **p.told, return_sums=True)
                    self.assertEqual(found.output.dtype, np.float32)
                    np.testing.assert_allclose(found.output, expected, atol=2e-5)
                    # What is left of a sum once its maximum is told: log sum exp.
                    np.testing.assert_allclose(
                        found.row_max + np.log(found.row_sum), row_max + np.log(row_sum), atol=1e-4
                    )
                    self.assertIsNone(found.selected)

    def test_float32_queries_may_meet_keys_of_16_bits(self):
        for dtype in DTYPES[1:]:
            p = Problem(self.rng, dtype)
            q = self.rng.standard_normal((p.heads, p.queries, p.qk_dim), dtype=np.float32)
            expected, _, _ = oracle(q, p.k, p.v, visible(p.queries, p.keys))
            np.testing.assert_allclose(
                sofattn.attention(q, p.k, p.v, **p.told), expected, atol=2e-5
            )

    def test_scale_is_what_logits_are_multiplied_by(self):
        p = Problem(self.rng)
        expected, _, _ = oracle(*p.arrays, visible(p.queries, p.keys), scale=0.3)
        np.testing.assert_allclose(sofattn.attention(*p.arrays, scale=0.3), expected, atol=2e-5)
        np.testing.assert_array_equal(
            sofattn.attention(*p.arrays), sofattn.attention(*p.arrays, scale=p.qk_dim**-0.5)
        )

    def test_caps_slopes_and_sinks_are_the_oracles(self):
        for trial in range(40):
            p = Problem(self.rng, DTYPES[trial % 3])
            terms = dict(
                softcap=float(self.rng.uniform(0.5, 20)),
                alibi_slopes=(0.5 ** np.arange(p.heads)).astype(np.float32),
                sink_logits=self.rng.uniform(-3, 5, p.heads).astype(np.float32),
            )
            for name in list(terms):
                if self.rng.random() < 0.4:
                    del terms[name]
            for mask in self.masks(p):
                with self.subTest(trial=trial, **mask, terms=list(terms)):
                    expected, row_max, row_sum = oracle(
                        *p.arrays, visible(p.queries, p.keys, **mask), **terms
                    )
                    found = sofattn.attention(
                        *p.arrays, **mask, **p.told, **terms, return_sums=True
                    )
                    np.testing.assert_allclose(found.output, expected, atol=3e-5)
                    np.testing.assert_allclose(
                        found.row_max + np.log(found.row_sum), row_max + np.log(row_sum), atol=1e-4
                    )

    def test_heads_may_have_budgets_of_their_own(self):
        for method in ("budget", "pages"):
            for name in ("mass", "output_error"):
                p = Problem(self.rng, most_keys=400)
                numbers = np.linspace(0.125, 0.875, p.heads).astype(np.float32)
                options = dict(method=method, dense_below=0)
                together = sofattn.attention(*p.arrays, **options, **{name: numbers})
                for head in range(p.heads):
                    alone = sofattn.attention(*p.arrays, **options, **{name: float(numbers[head])})
                    np.testing.assert_array_equal(together[head], alone[head])

    def test_results_do_not_depend_on_threads(self):
        for trial in range(12):
            p = Problem(self.rng, DTYPES[trial % 3], most_keys=900)
            for more in (
                dict(),
                dict(method="best_keys", count=40, sinks=1, recent=4, dense_below=0),
                dict(method="budget", output_error=0.05, dense_below=0),
                dict(method="pages", output_error=0.3, dense_below=0),
                dict(method="pages", mass=0.9, products="bfloat16", dense_below=0),
            ):
                with self.subTest(trial=trial, **more):
                    alone = sofattn.attention(*p.arrays, **p.told, **more)
                    for threads in (2, 3, 7):
                        np.testing.assert_array_equal(
                            sofattn.attention(*p.arrays, **p.told, **more, threads=threads), alone
                        )

    def test_threads_are_there_in_the_child_of_a_fork(self):
        p = Problem(self.rng, most_keys=300)
        expected = sofattn.attention(*p.arrays, threads=3)
        child = os.fork()
        if child == 0:  # no unittest here: nothing but an exit code may come back
            try:
                same = np.array_equal(sofattn.attention(*p.arrays, threads=3), expected)
                os._exit(0 if same else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        self.assertEqual(status, 0)

    def test_out_is_written_where_it_lies_and_nothing_beside_it(self):
        for trial in range(30):
            p = Problem(self.rng)
            expected = sofattn.attention(*p.arrays)
            marker = np.full(expected.shape, 7, dtype=np.float32)
            out = scattered(marker, self.rng)
            room = out
            while room.base is not None:
                room = room.base
            gaps = room == 0
            self.assertIs(sofattn.attention(*p.arrays, out=out), out)
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(room[gaps], 0, err_msg=f"trial {trial}")

    def test_inputs_are_not_copied(self):
        row = self.rng.standard_normal((1, 1, 64), dtype=np.float32)
        keys = np.broadcast_to(row, (1, 1 << 20, 64))  # 256 MiB if it were more than one row
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
        out = sofattn.attention(row, keys, keys, mask="none")
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 64 << 10)
        np.testing.assert_allclose(out, row, rtol=1e-3)

    def test_best_keys_are_the_best_and_are_named(self):
        for trial in range(10):
            p = Problem(self.rng, most_keys=600, most_queries=4)
            count = int(self.rng.integers(1, p.keys + 1))
            options = dict(count=count, sinks=0, recent=0, dense_below=0)
            together = bool(trial % 2)
            found = sofattn.attention(
                *p.arrays,
                method="best_keys",
                heads_together=together,
                return_selected=True,
                **options,
            )
            lists = p.kv_heads if together else p.heads
            self.assertEqual(found.selected.shape[:2], (lists, p.queries))
            seen = np.zeros((p.heads, p.queries, p.keys), dtype=bool)
            for head in range(p.heads):
                which = head * lists // p.heads
                for query in range(p.queries):
                    row = found.selected[which, query]
                    kept = found.selected_counts[which, query]
                    self.assertEqual(kept, min(count, p.keys - p.queries + 1 + query))
                    self.assertTrue((row[kept:] == -1).all())
                    self.assertTrue((np.diff(row[:kept]) > 0).all())
                    seen[head, query, row[:kept]] = True
            expected, _, _ = oracle(*p.arrays, seen)
            np.testing.assert_allclose(found.output, expected, atol=1e-4)
            # The same keys as a list.
            listed = sofattn.attention(
                *p.arrays, method="listed", lists=found.selected, list_counts=found.selected_counts
            )
            np.testing.assert_allclose(found.output, listed, atol=1e-5)

    def test_lists_say_which_keys_are_seen(self):
        for trial in range(40):
            p = Problem(self.rng)
            list_heads = (1, p.kv_heads, p.heads)[trial % 3]
            queries_each = int(self.rng.integers(1, 5))
            keys_each = int(self.rng.integers(1, 5))
            rows = -(-p.queries // queries_each)
            blocks = -(-p.keys // keys_each)
            slots = int(self.rng.integers(1, blocks + 3))
            lists = np.full((list_heads, rows, slots), -1, dtype=np.int32)
            counts = np.zeros((list_heads, rows), dtype=np.int32)
            seen = np.zeros((p.heads, p.queries, p.keys), dtype=bool)
            for h in range(list_heads):
                for r in range(rows):
                    counts[h, r] = n = self.rng.integers(0, min(slots, blocks) + 1)
                    lists[h, r, :n] = self.rng.permutation(blocks)[:n]
                    keys = np.isin(np.arange(p.keys) // keys_each, lists[h, r, :n])
                    heads = slice(h * p.heads // list_heads, (h + 1) * p.heads // list_heads)
                    seen[heads, r * queries_each : (r + 1) * queries_each] = keys
            options = dict(
                method="listed", lists=lists, list_queries_each=queries_each, list_keys_each=keys_each
            )
            causal = visible(p.queries, p.keys)
            expected, _, _ = oracle(*p.arrays, seen & causal)
            weights = np.exp(logits_of(p.q, p.k)) * causal
            dropped = (weights * ~seen).sum(axis=-1) / weights.sum(axis=-1)
            for more in (dict(), dict(list_counts=counts)):
                got = sofattn.attention(*p.arrays, **options, **more, return_dropped=True)
                np.testing.assert_allclose(got.output, expected, atol=2e-5)
                # All keys are drawn where there are no more than 256.
                np.testing.assert_allclose(got.dropped_mass, dropped, atol=2e-5)

    def test_budgets_keep_what_they_are_told(self):
        p = Problem(self.rng, most_keys=700)
        dense = sofattn.attention(*p.arrays)
        everything = sofattn.attention(*p.arrays, method="budget", mass=1, dense_below=0)
        np.testing.assert_allclose(everything, dense, atol=0.05)
        codes = sofattn.prefill_codes(p.k, p.v)
        self.assertEqual(codes.tokens, p.keys)
        for budget in (dict(mass=0.9), dict(output_error=0.02)):
            one = sofattn.attention(*p.arrays, method="budget", dense_below=0, **budget)
            two = sofattn.attention(
                *p.arrays, method="budget", dense_below=0, codes=codes, **budget
            )
            np.testing.assert_array_equal(one, two)
            self.assertLess(np.sqrt(np.mean((one - dense) ** 2)), 0.3 * np.std(dense))

    def test_pages_lose_what_they_are_told_to(self):
        for products in ("float32", "bfloat16"):
            # Keys whose pages differ: some matter to every query, most to none.
            pages = self.rng.standard_normal((2, 60, 1, 32)) + np.linspace(-2, 2, 60)[:, None, None]
            k = (pages + 0.2 * self.rng.standard_normal((2, 60, 16, 32))).reshape(2, 960, 32)
            k = k.astype(np.float32)
            v = self.rng.standard_normal((2, 960, 48), dtype=np.float32)
            q = self.rng.standard_normal((4, 100, 32), dtype=np.float32) + np.float32(0.5)
            codes = sofattn.prefill_codes(k, v, method="pages", products=products)
            self.assertEqual(codes.tokens, 960)
            options = dict(method="pages", products=products, dense_below=0)
            dense = sofattn.attention(q, k, v, products=products)
            everything = sofattn.attention(q, k, v, mass=1, **options)
            rounding = 1e-4 if products == "float32" else 0.02
            np.testing.assert_allclose(everything, dense, atol=rounding)
            before = 1.0
            for mass in (0.5, 0.9, 0.999):
                found = sofattn.attention(q, k, v, mass=mass, return_dropped=True, **options)
                coded = sofattn.attention(q, k, v, mass=mass, codes=codes, **options)
                np.testing.assert_array_equal(found.output, coded)
                self.assertGreater(found.dropped_mass.max(), 0)
                self.assertLess(found.dropped_mass.mean(), before)
                before = found.dropped_mass.mean()
                off = np.sqrt(np.mean((coded - dense) ** 2)) / np.std(dense)
                self.assertLess(off, 2 * (1 - mass) + rounding)

    def test_short_sequences_are_dense_bit_for_bit(self):
        p = Problem(self.rng)
        dense = sofattn.attention(*p.arrays)
        for more in (
            dict(method="best_keys", count=1),
            dict(method="budget", mass=0.5),
            dict(method="pages", mass=0.5),
        ):
            np.testing.assert_array_equal(sofattn.attention(*p.arrays, **more), dense)
        counted = sofattn.attention(*p.arrays, method="best_keys", count=1, return_selected=True)
        self.assertTrue((counted.selected == -1).all())
        np.testing.assert_array_equal(
            counted.selected_counts[0], np.arange(p.keys - p.queries, p.keys) + 1
        )

    def test_products_of_fewer_bits_are_near(self):
        q, k, v = (self.rng.standard_normal((2, 300, 64), dtype=np.float32) for _ in range(3))
        dense = sofattn.attention(q, k, v)
        for products, error in (("float32", 0), ("bfloat16", 0.02), ("int8", 0.1)):
            found = sofattn.attention(q, k, v, products=products)
            self.assertLessEqual(abs(found - dense).max(), error)

    def test_documentation_and_version(self):
        for name in sofattn.__all__:
            self.assertTrue(name == "__version__" or getattr(sofattn, name).__doc__, name)
        self.assertRegex(sofattn.version(), r"^\d+\.\d+\.\d+$")
        self.assertIn(sofattn.instruction_set(), ("base", "avx2", "avx512", "avx512_dot"))


if __name__ == "__main__":
    unittest.main()
