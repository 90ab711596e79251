# SPDX-License-Identifier: MIT
"""What cannot be done is an exception with the library's sentence, never a crash, and writes nothing."""

import os
import unittest

import numpy as np
import sofattn
from numpy.lib.stride_tricks import as_strided
from support import SEED, Problem

REFUSALS = (ValueError, TypeError, MemoryError)
HUGE = (-(2**63), -(2**31), -1, 2**31, 2**62, 2**63, 2**200)


def odd_types(x):
    """Of the same shape, but no type that the library reads."""
    kinds = [np.float64, np.int8, np.int32, np.uint16, np.complex64, np.bool_, object, "U3", ">f4"]
    record = np.zeros(x.shape, dtype=[("a", "f4")])
    wide = np.dtype("f4").newbyteorder()
    return [x.astype(kind) for kind in kinds] + [record, x.astype(wide)]


def odd_arrays(x, rng):
    """[name, array] none of which may be read as [head, token, channel]."""
    flat = np.ascontiguousarray(x)
    apart = np.zeros(x.shape[:2] + (2 * x.shape[2] + 2,), dtype=x.dtype)[:, :, ::2]
    room = np.zeros(flat.nbytes + 1, dtype=np.uint8)
    shifted = room[1:].view(flat.dtype).reshape(flat.shape)
    torn = as_strided(
        np.zeros(4 * flat.size + 64, dtype=flat.dtype),
        shape=(2, 2, x.shape[2]),
        strides=(4 * x.shape[2] + 1, 4 * x.shape[2] + 3, flat.itemsize),
    )
    cases = [
        ("nothing", None),
        ("a number", 3.5),
        ("a list", flat.tolist()),
        ("bytes", flat.tobytes()),
        ("a scalar", np.float32(1)),
        ("no axes", np.zeros((), dtype=x.dtype)),
        ("one axis", flat.ravel()),
        ("two axes", flat[0]),
        ("four axes", flat[None]),
        ("channels apart", apart),
        ("channels backwards", np.zeros(x.shape[:2] + (x.shape[2] + 1,), x.dtype)[:, :, ::-1]),
        ("channels repeated", np.broadcast_to(np.zeros(1, x.dtype), x.shape[:2] + (x.shape[2] + 1,))),
        ("no heads", flat[:0]),
        ("no tokens", flat[:, :0]),
        ("no channels", flat[:, :, :0]),
        ("300 channels", np.zeros(x.shape[:2] + (300,), dtype=x.dtype)),
        ("2^40 tokens", np.broadcast_to(flat[:1, :1], (1, 2**40, x.shape[2]))),
        ("2^40 heads", np.broadcast_to(flat[:1, :1], (2**40, 1, x.shape[2]))),
        ("a masked array", np.ma.masked_array(flat, mask=np.zeros(x.shape, dtype=bool))),
        ("unaligned", shifted),
        ("torn strides", torn),
    ]
    cases += [(f"type {a.dtype}", a) for a in odd_types(flat)]
    name, array = cases[int(rng.integers(len(cases)))]
    return name, array


def odd_output(p, rng):
    shape = (p.heads, p.queries, p.v_dim)
    good = np.zeros(shape, dtype=np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    more = tuple(n + 1 for n in shape)
    cases = [
        ("read-only", frozen),
        ("a list", good.tolist()),
        ("float64", good.astype(np.float64)),
        ("uint16", good.astype(np.uint16)),
        ("float16 of the other byte order", good.astype(np.float16).astype(">f2")),
        ("two axes", good[0]),
        ("four axes", good[None]),
        ("larger", np.zeros(more, dtype=np.float32)),
        ("channels apart", np.zeros(shape[:2] + (2 * p.v_dim + 2,), np.float32)[:, :, ::2]),
        ("a masked array", np.ma.masked_array(good, mask=np.ones(shape, dtype=bool))),
        ("not there", good[:, :0]),
    ]
    if p.queries > 1:
        cases += [
            ("rows on each other", as_strided(good, shape, (good.strides[0], 0, 4))),
            ("rows that overlap", as_strided(np.zeros(good.size + 8, np.float32), shape, (4, 4, 4))),
        ]
    return cases[int(rng.integers(len(cases)))]


def odd_option(p, rng):
    """(name, options) of which the library does not do one."""
    some = HUGE[int(rng.integers(4))]
    huge = HUGE[int(rng.integers(len(HUGE)))]
    lists = np.zeros((1, p.queries, 2), dtype=np.int32)
    wrong = "a text"
    listed = dict(method="listed", lists=lists)
    best = dict(method="best_keys")
    budget = dict(method="budget", mass=0.9)
    pages = dict(method="pages", mass=0.9)
    keys = sofattn.prefill_codes(p.k, p.v, **p.told)
    looked = sofattn.prefill_codes(p.k, p.v, method="pages", **p.told)
    cases = [
        dict(mask="diagonal"),
        dict(mask=3),
        dict(mask="window"),
        dict(mask="window", window=0),
        dict(mask="window", window=huge),
        dict(mask="prefix", prefix=huge),
        dict(window=5),
        dict(prefix=5),
        dict(window=2.5, mask="window"),
        dict(scale=0),
        dict(scale=-1),
        dict(scale=float("nan")),
        dict(scale=float("inf")),
        dict(scale=wrong),
        dict(softcap=-1),
        dict(softcap=float("nan")),
        dict(softcap=1e300),
        dict(softcap=wrong),
        dict(alibi_slopes=[0.5] * p.heads),
        dict(alibi_slopes=np.ones(p.heads)),
        dict(alibi_slopes=np.ones(p.heads + 1, dtype=np.float32)),
        dict(alibi_slopes=np.full(p.heads, np.nan, dtype=np.float32)),
        dict(sink_logits=np.ones((p.heads, 1), dtype=np.float32)),
        dict(sink_logits=np.full(p.heads, np.inf, dtype=np.float32)),
        dict(listed, alibi_slopes=np.ones(p.heads, dtype=np.float32)),
        dict(best, dense_below=0, alibi_slopes=np.ones(p.heads, dtype=np.float32)),
        dict(budget, dense_below=0, softcap=30),
        dict(budget, mass=np.zeros(p.heads, dtype=np.float32)),
        dict(budget, mass=np.ones(p.heads + 1, dtype=np.float32)),
        dict(budget, output_error=np.ones(p.heads, dtype=np.float32)),
        dict(method="flash"),
        dict(method=None, count=3),
        dict(products="float64"),
        dict(products=8),
        dict(count=3),
        dict(sinks=3),
        dict(recent=3),
        dict(heads_together=True),
        dict(dense_below=3),
        dict(mass=0.5),
        dict(output_error=0.5),
        dict(page_loss=0.1),
        dict(lists=lists),
        dict(codes=7),
        dict(return_selected=True),
        dict(return_selected=1),
        dict(return_sums="yes"),
        dict(check_finite=np.ones(3)),
        dict(threads=0),
        dict(threads=huge),
        dict(threads=1.5),
        dict(threads=wrong),
        dict(dtype="float64"),
        dict(dtype=np.float32),
        dict(out_dtype="float16"),  # `out` is float32
        dict(out_dtype="int8"),
        dict(out_dtype=np.float32),
        dict(best, count=0),
        dict(best, count=some),
        dict(best, sinks=huge),
        dict(best, recent=huge),
        dict(best, dense_below=huge),
        dict(best, dense_below=0, mask="window", window=3),
        dict(best, mass=0.5),
        dict(budget, output_error=0.1),
        dict(budget, mass=1.5),
        dict(budget, mass=0),
        dict(budget, mass=float("nan")),
        dict(budget, page_loss=1),
        dict(budget, codes=wrong),
        dict(budget, codes=sofattn.prefill_codes(p.k.copy(), p.v, **p.told)),
        dict(budget, dense_below=0, return_sums=True),
        dict(budget, codes=looked),
        dict(pages, mass=None),
        dict(pages, output_error=0.1),
        dict(pages, mass=1.5),
        dict(pages, mass=np.zeros(p.heads, dtype=np.float32)),
        dict(pages, page_loss=0.1),
        dict(pages, count=3),
        dict(pages, products="int8"),
        dict(pages, codes=keys),
        dict(pages, codes=looked, products="bfloat16"),
        dict(pages, codes=sofattn.prefill_codes(p.k.copy(), p.v, method="pages", **p.told)),
        dict(pages, dense_below=0, softcap=30),
        dict(pages, dense_below=0, return_sums=True),
        dict(pages, return_selected=True),
        dict(method="listed"),
        dict(listed, lists=lists.astype(np.int64)),
        dict(listed, lists=lists[0]),
        dict(listed, lists=lists[:, :-1]),
        dict(listed, lists=lists[:, :, :0]),
        dict(listed, lists=lists.tolist()),
        dict(listed, lists=np.zeros((1, p.queries, 4), dtype=np.int32)[:, :, ::2]),
        dict(listed, lists=np.zeros((p.heads + 1, p.queries, 2), dtype=np.int32)),
        dict(listed, lists=np.zeros((1, p.queries + 1, 2), dtype=np.int32)),
        dict(listed, list_queries_each=p.queries + 1 if p.queries > 1 else 0),
        dict(listed, list_queries_each=huge),
        dict(listed, list_keys_each=huge),
        dict(listed, list_counts=np.zeros((1, p.queries + 1), dtype=np.int32)),
        dict(listed, list_counts=np.zeros((2, p.queries), dtype=np.int32)),
        dict(listed, list_counts=np.zeros((1, p.queries))),
        dict(listed, count=3),
        dict(temperature=0.8),
    ]
    return cases[int(rng.integers(len(cases)))]


class Refusals(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def refuses(self, call, **about):
        with self.subTest(**about):
            try:
                call()
            except REFUSALS as e:
                if type(e) is ValueError:
                    self.assertRegex(str(e), r"^sofattn: .+ (is|are) .+, must be .+ \(\w+\)$")
                return str(e)
            self.fail("was done")

    def test_a_call_with_one_defect_is_refused_and_writes_nothing(self):
        texts = set()
        for trial in range(6000):
            p = Problem(self.rng, ("float32", "float16")[trial % 2], most_keys=20)
            given = dict(q=p.q, k=p.k, v=p.v)
            # A width of one channel has no stride, and one row has none either.
            if min(p.qk_dim, p.v_dim) < 2:
                continue
            out = np.full((p.heads, p.queries, p.v_dim), 7, dtype=np.float32)
            options = dict(out=out)
            kind = trial % 3
            if kind == 0:
                name = "qkv"[int(self.rng.integers(3))]
                defect, given[name] = odd_arrays(given[name], self.rng)
                defect = f"{name}: {defect}"
            elif kind == 1:
                defect, options["out"] = odd_output(p, self.rng)
            else:
                more = odd_option(p, self.rng)
                options.update(more)
                defect = ", ".join(f"{n}={str(x)[:20]}" for n, x in more.items())
            texts.add(
                self.refuses(lambda: sofattn.attention(**given, **options), trial=trial, defect=defect)
            )
            self.assertTrue((out == 7).all(), defect)
        self.assertGreater(len(texts), 100)

    def test_an_output_may_not_lie_on_inputs_but_between_them(self):
        x = self.rng.standard_normal((2, 8, 3, 4), dtype=np.float32)  # q, k and v of a token together
        q, k, v = x[:, :, 0], x[:, :, 1], x[:, :, 2]
        for taken in (q, k, v):
            self.refuses(lambda: sofattn.attention(q, k, v, out=taken))
        self.refuses(lambda: sofattn.attention(q, k, v, out=x.reshape(2, 24, 4)[:, 1:9]))
        both = np.zeros((2, 8, 2, 4), dtype=np.float32)
        both[:, :, 0] = q
        expected = sofattn.attention(q, k, v)
        sofattn.attention(both[:, :, 0], k, v, out=both[:, :, 1])
        np.testing.assert_array_equal(both[:, :, 1], expected)

    def test_what_is_not_finite_is_refused_where_that_is_asked_for(self):
        for trial in range(60):
            p = Problem(self.rng, ("float32", "float16")[trial % 2], most_keys=300)
            arrays = [a.copy() for a in p.arrays]
            which = trial % 3
            at = tuple(int(self.rng.integers(n)) for n in arrays[which].shape)
            arrays[which][at] = (np.nan, np.inf, -np.inf)[int(self.rng.integers(3))]
            text = self.refuses(lambda: sofattn.attention(*arrays, check_finite=True), trial=trial)
            self.assertIn("not_finite", text)
            # Selections refuse it without being asked.
            for how in (
                dict(method="best_keys"),
                dict(method="budget", mass=0.9),
                dict(method="pages", mass=0.9),
            ):
                self.refuses(lambda: sofattn.attention(*arrays, dense_below=0, **how), trial=trial)
            if which > 0:
                for told in (
                    dict(),
                    dict(method="pages"),
                    dict(method="pages", products="bfloat16"),
                ):
                    self.refuses(lambda: sofattn.prefill_codes(*arrays[1:], **told), trial=trial)
            sofattn.attention(*arrays)  # unspecified numbers, but no crash

    def test_lists_may_hold_any_numbers(self):
        for _ in range(300):
            p = Problem(self.rng, most_keys=20)
            each = int(self.rng.integers(1, 4))
            shape = (1, -(-p.queries // each), int(self.rng.integers(1, 50)))
            lists = self.rng.integers(-(2**31), 2**31, shape).astype(np.int32)
            near = self.rng.random(shape) < 0.5
            lists[near] = self.rng.integers(-2, p.keys + 2, int(near.sum()))
            counts = self.rng.integers(-(2**31), 2**31, shape[:2]).astype(np.int32)
            found = sofattn.attention(
                *p.arrays,
                method="listed",
                lists=lists,
                list_counts=counts,
                list_queries_each=each,
                list_keys_each=int(self.rng.choice([1, 2, 2**31 - 1])),
            )
            self.assertTrue(np.isfinite(found).all())

    def test_any_mixture_is_done_or_refused(self):
        done = 0
        for _ in range(3000):
            p = Problem(self.rng, most_keys=20)
            given = dict(q=p.q, k=p.k, v=p.v)
            options = {}
            for _ in range(int(self.rng.integers(0, 4))):
                if self.rng.random() < 0.3:
                    name = "qkv"[int(self.rng.integers(3))]
                    array = odd_arrays(getattr(p, name), self.rng)[1]
                    given[name] = array if isinstance(array, np.ndarray) and array.ndim == 3 else p.k
                else:
                    options.update(odd_option(p, self.rng))
            try:
                sofattn.attention(**given, **options)
                done += 1
            except REFUSALS:
                pass
        self.assertGreater(done, 100)


class CacheRefusals(unittest.TestCase):
    refuses = Refusals.refuses

    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    def test_a_layout_with_one_defect_is_refused(self):
        good = dict(pages=4, qk_dim=8)
        for field in ("pages", "qk_dim", "v_dim", "kv_heads", "layers", "page_tokens", "coded_from"):
            for value in HUGE + (1.5, "a text", [], np.zeros(2)):
                self.refuses(lambda: sofattn.KVPool(**{**good, field: value}), field=field, value=value)
            if field != "coded_from":
                self.refuses(lambda: sofattn.KVPool(**{**good, field: 0}), field=field)
        for dtype in ("float64", "", 7, np.float32):
            self.refuses(lambda: sofattn.KVPool(**good, dtype=dtype), dtype=dtype)
        for products in ("int8", "", 1, np.float32):
            self.refuses(lambda: sofattn.KVPool(**good, page_codes=products), page_codes=products)

    @unittest.skipIf("libasan" in os.environ.get("LD_PRELOAD", ""), "ASan ends the program instead")
    def test_a_layout_of_more_than_any_machine_has_is_a_memory_error(self):
        with self.assertRaises(MemoryError):
            sofattn.KVPool(pages=2**31 - 1, page_tokens=1, qk_dim=256, kv_heads=65536)

    def test_a_sequence_refuses_what_it_is_not_ready_for(self):
        pool = sofattn.KVPool(pages=8, page_tokens=4, layers=2, kv_heads=2, qk_dim=8, v_dim=6)
        k = self.rng.standard_normal((2, 5, 8), dtype=np.float32)
        v = self.rng.standard_normal((2, 5, 6), dtype=np.float32)
        q = self.rng.standard_normal((4, 1, 8), dtype=np.float32)
        s = sofattn.Sequence(pool)
        for wrong in (None, pool._core, 3):
            self.refuses(lambda: sofattn.Sequence(wrong))
        self.refuses(lambda: s.attend(0, q))  # nothing there
        s.append(0, k, v)
        self.refuses(lambda: s.attend(1, q))  # not in this layer
        self.refuses(lambda: s.fork())
        self.refuses(lambda: s.write(0, k, v))  # not extended
        s.append(1, k, v)
        for layer in HUGE + (2, 1.5, None, "0"):
            self.refuses(lambda: s.append(layer, k, v), layer=layer)
            self.refuses(lambda: s.attend(layer, q), layer=layer)
            self.refuses(lambda: s.written(layer), layer=layer)
        for tokens in HUGE + (6, 1.5, None):
            self.refuses(lambda: s.truncate(tokens), tokens=tokens)
        for tokens in HUGE + (1000, 1.5, None):
            self.refuses(lambda: s.extend(tokens), tokens=tokens)
        for bad_k, bad_v in (
            (k[:1], v),
            (k, v[:1]),
            (k[:, :4], v),
            (k[:, :, :6], v),
            (k, k),
            (k[:, :, ::-1], v),
        ):
            self.refuses(lambda: s.append(0, bad_k, bad_v))
        for _ in range(300):
            which = int(self.rng.integers(3))
            name, array = odd_arrays((q, k, v)[which], self.rng)
            if name == "no tokens" and which > 0:
                continue  # of the other there are some: a mismatch; of both, nothing to do
            if which == 0:
                self.refuses(lambda: s.attend(0, array), name=name)
            else:
                pair = (array, v) if which == 1 else (k, array)
                self.refuses(lambda: s.append(0, *pair), name=name, which=which)
        for more in (
            dict(method="budget", mass=0.5, dense_below=0),
            dict(method="pages", mass=0.5, dense_below=0),
            dict(method="best_keys", codes=None),
            dict(products="int8", out=np.zeros((4, 1, 6))),
            dict(mask="window"),
        ):
            self.refuses(lambda: s.attend(0, q, **more), **more)
        for heads in (1, 3):
            self.refuses(lambda: s.attend(0, q[:heads]))
        self.assertEqual((s.length, s.written(0), s.written(1), pool.free_pages), (5, 5, 5, 6))
        with self.assertRaises(ValueError):
            sofattn.attention(q, k, v, dtype="bfloat16", codes=s)


if __name__ == "__main__":
    unittest.main()
