# SPDX-License-Identifier: MIT
"""When memory ends, at each request of the module or the library in turn: MemoryError, and nothing has changed."""

import ctypes
import os
import unittest

import numpy as np
import sofattn
from support import SEED, coded

ALLOCATOR = os.environ.get("SOFATTN_TEST_ALLOCATOR", "")  # is operator new, see scarce_memory.cpp


def plainly(act, state=None):
    return act()


@unittest.skipUnless(ALLOCATOR, "takes an operator new that refuses")
class Memory(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)
        self.allocator = ctypes.CDLL(ALLOCATOR)
        self.allocator.sofattn_test_grant.argtypes = [ctypes.c_long, ctypes.c_int]
        self.refusals = 0

    def scarcely(self, then_all):
        """A function that acts with memory for 0, 1, 2 and so on requests, until it has enough."""

        def act_scarcely(act, state=lambda: None):
            granted = 0
            while True:
                before = state()
                result = error = None
                self.allocator.sofattn_test_grant(granted, then_all)
                try:
                    result = act()
                except BaseException as e:
                    error = e
                refused = self.allocator.sofattn_test_was_refused()
                self.allocator.sofattn_test_grant(-1, 0)
                if not refused:
                    self.assertIsNone(error)
                    return result
                self.assertIsInstance(error, MemoryError, (granted, then_all))
                self.assertEqual(state(), before, (granted, then_all))
                self.refusals += 1
                granted += 1

        return act_scarcely

    def rows(self, *shape):
        return self.rng.standard_normal(shape, dtype=np.float32)

    def same_with_scarce_memory(self, work, least):
        """work(how to act): arrays and bytes that do not depend on how."""
        expected = work(plainly)
        for then_all in (0, 1):
            self.refusals = 0
            found = work(self.scarcely(then_all))
            self.assertEqual(len(found), len(expected))
            for one, other in zip(found, expected):
                np.testing.assert_array_equal(one, other)
            self.assertGreaterEqual(self.refusals, least)

    def test_a_cache_changes_or_is_as_before(self):
        k, v = self.rows(2, 300, 16), self.rows(2, 300, 8)
        q = self.rows(4, 20, 16)
        methods = (
            dict(),
            dict(method="best_keys", count=40, recent=8, dense_below=0),
            dict(method="pages", mass=0.7, dense_below=0),
            dict(return_sums=True),
        )

        def work_on(dtype):
            def work(act):
                pool = act(
                    lambda: sofattn.KVPool(
                        pages=100,
                        page_tokens=16,
                        layers=2,
                        kv_heads=2,
                        qk_dim=16,
                        v_dim=8,
                        dtype=dtype,
                        coded_from=48,
                        page_codes="float32",
                    )
                )
                results = []

                def state(one):
                    # Not free pages: of one that was shared with a fork, an append that fails leaves a copy.
                    whole = one.written(0) == one.written(1) == len(one)
                    told = one.export_bytes() if whole else b""
                    return told, len(one), one.written(0), one.code_bytes

                def append(one, first, end):
                    for layer in range(2):
                        act(
                            lambda: one.append(layer, k[:, first:end], v[:, first:end]),
                            lambda: state(one),
                        )
                    results.append(one.export_bytes())

                one = act(lambda: sofattn.Sequence(pool), lambda: pool.free_pages)
                first = 0
                for end in (1, 20, 50, 51, 130, 300):
                    append(one, first, end)
                    first = end
                twin = act(one.fork, lambda: state(one))
                for stay in (290, 120, 40):
                    act(lambda: twin.truncate(stay), lambda: state(twin))
                    results.append(twin.export_bytes())
                append(twin, 40, 90)
                told = act(one.export_bytes, lambda: state(one))
                act(lambda: twin.import_bytes(told), lambda: state(twin))
                act(lambda: twin.extend(5), lambda: state(twin))
                twin.truncate(300)
                for how in methods:
                    queries = q if how.get("method") == "pages" else q[:, :2]
                    found = act(lambda: twin.attend(1, queries, **how), lambda: state(twin))
                    results.append(found.row_max if how.get("return_sums") else found)
                results += act(lambda: sofattn.attend_batch([one, twin], 0, [q[:, :1], q[:, :3]]))
                results.append(np.array(pool.free_pages))
                return results

            return work

        for dtype in ("float32", "int8"):
            self.same_with_scarce_memory(work_on(dtype), 300)

    def test_attention_is_whole_or_an_error(self):
        k, v, q = self.rows(2, 300, 16), self.rows(2, 300, 8), self.rows(4, 20, 16)
        (k8, k_scales), (v8, v_scales) = coded(k), coded(v)
        in_int8 = dict(k=k8, v=v8, k_scales=k_scales, v_scales=v_scales)

        def work(act):
            results = []
            for arrays in (dict(k=k, v=v), in_int8):
                for how in (
                    dict(threads=3),
                    dict(method="best_keys", count=40, recent=8, dense_below=0, threads=2),
                    dict(method="pages", mass=0.7, dense_below=0),
                    dict(method="budget", mass=0.7, dense_below=0 if arrays["k"] is k else None),
                    dict(method="listed", lists=np.zeros((1, 20, 1), dtype=np.int32)),
                ):
                    out = np.zeros((4, 20, 8), dtype=np.float32)
                    results.append(
                        act(lambda: sofattn.attention(q, **arrays, **how, out=out), out.tobytes)
                    )
                codes = act(lambda: sofattn.prefill_codes(**arrays, method="pages"))
                results.append(np.array(codes.tokens))
            return results

        self.same_with_scarce_memory(work, 100)


if __name__ == "__main__":
    unittest.main()
