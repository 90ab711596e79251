# SPDX-License-Identifier: MIT
# %% [markdown]
# # sofattn in a Python engine
#
# Prefill of a prompt, dense and sparse; a KV cache that requests share; decode over it. Cells begin with
# `# %%`: run them one by one in an editor, or all of them as a program:
#
#     PYTHONPATH=build/python python3 examples/03_engine.py [TOKENS [STEPS [THREADS]]]

# %%
import sys
import time

import numpy as np
import sofattn

TOKENS, STEPS, THREADS = (int(x) for x in (sys.argv[1:] + ["16384", "32", "1"][len(sys.argv) - 1 :]))
HEADS, KV_HEADS, DIM, TOPICS, REQUESTS = 16, 4, 128, 32, 4
print(f"sofattn {sofattn.version()}, {sofattn.instruction_set()}, {THREADS} thread(s)")

# %% [markdown]
# What a model would compute. Most keys are noise, some belong to one of 32 topics, and a query asks for a
# topic; the query heads of a KV head ask for the same one.

# %%
rng = np.random.default_rng(1)
topics = rng.uniform(-1, 1, (TOPICS, DIM)).astype(np.float32)


def keys_and_values(tokens):
    """Two arrays [kv_head, token, channel]; one key in sixteen is on a topic."""
    noise = rng.random((2, KV_HEADS, tokens, DIM), dtype=np.float32) * 2 - 1
    on_topic = rng.random((KV_HEADS, tokens, 1)) < 1 / 16
    return noise[0] + on_topic * topics[rng.integers(TOPICS, size=(KV_HEADS, tokens))], noise[1]


def queries(tokens):
    """[head, token, channel]"""
    asked = np.repeat(rng.integers(TOPICS, size=(KV_HEADS, tokens)), HEADS // KV_HEADS, axis=0)
    return rng.random((HEADS, tokens, DIM), dtype=np.float32) * 2 - 1 + 3 * topics[asked]


def timed(call):
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def difference(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# %% [markdown]
# ## Prefill
#
# All queries of the prompt at once. An output error is in spreads of the values, and decides how many keys
# are kept.

# %%
q, (k, v) = queries(TOKENS), keys_and_values(TOKENS)
dense, dense_time = timed(lambda: sofattn.attention(q, k, v, threads=THREADS))
codes = sofattn.prefill_codes(k, v)
sparse, sparse_time = timed(
    lambda: sofattn.attention(
        q, k, v, method="budget", output_error=0.01, codes=codes, dense_below=0, threads=THREADS
    )
)
print(f"prefill of {TOKENS} tokens: dense {dense_time:.2f} s, sparse {sparse_time:.2f} s,")
print(f"  outputs differ by {difference(sparse, dense):.4f} of their size")

# %% [markdown]
# Or all keys of the pages of 16 that have such a share of the softmax, here in products of bfloat16.

# %%
codes = sofattn.prefill_codes(k, v, method="pages", products="bfloat16")
options = dict(method="pages", products="bfloat16", mass=0.99, codes=codes)
paged, paged_time = timed(
    lambda: sofattn.attention(q, k, v, **options, dense_below=0, threads=THREADS)
)
print(f"  by pages {paged_time:.2f} s, outputs differ by {difference(paged, dense):.4f}")

# %% [markdown]
# ## Decode
#
# Requests that share the prompt are forks of one sequence. Memory is copied where one of them writes.

# %%
pages = (TOKENS + REQUESTS * (STEPS + 64)) // 64 + REQUESTS
pool = sofattn.KVPool(pages=pages, kv_heads=KV_HEADS, qk_dim=DIM, dtype="float16")
prompt = sofattn.Sequence(pool)
prompt.append(0, k, v)
requests = [prompt.fork() for _ in range(REQUESTS)]
print(f"cache: {pool.bytes_per_token} bytes per token, {prompt.code_bytes / TOKENS:.0f} of codes")


def decode(sequence, q, **how):
    return timed(lambda: sequence.attend(0, q, threads=THREADS, **how))


times, worst = np.zeros(2), 0.0
for _ in range(STEPS):
    for sequence in requests:
        sequence.append(0, *keys_and_values(1))
        q = queries(1)
        dense, dense_time = decode(sequence, q)
        sparse, sparse_time = decode(sequence, q, method="best_keys", count=1024, dense_below=0)
        times += dense_time, sparse_time
        worst = max(worst, difference(sparse, dense))
rates = REQUESTS * STEPS / times
print(f"decode, {REQUESTS} requests of {STEPS} tokens: all keys {rates[0]:.0f} tokens/s,")
print(f"  best 1024 {rates[1]:.0f} tokens/s, outputs differ by at most {worst:.4f} of their size")
assert worst < 0.2, worst

# %% [markdown]
# What cannot be done is said, and changes nothing.

# %%
try:
    requests[0].attend(0, q, mask="window", window=512, method="best_keys", dense_below=0)
except ValueError as e:
    print(e)
try:
    requests[0].extend(10**6)
except sofattn.PoolFull as e:
    print(e)

# %% [markdown]
# ## The accelerator
#
# A prefill of 4096 tokens on a model of the paper's machine, where a tenth of the keys is kept.

# %%
try:
    report = sofattn.hardware(
        workload={
            "base_name": "llama_7b_attention",
            "keys_count": 4096,
            "queries_count": 4096,
            "heads_count": HEADS,
            "kv_heads_count": KV_HEADS,
            "kept_share": 0.1,
        }
    )
    print(f"SOFA: {report['total_cycles']} cycles for 4096 tokens, {report['time_seconds'] * 1e3:.1f} ms")
except ImportError as e:  # built without it
    print(e)
