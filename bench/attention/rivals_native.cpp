// SPDX-License-Identifier: MIT
// What dense attention is measured against: FlashAttention-2 by hand over other people's matrix
// products, one head, causal. Made only of the libraries that CMake finds.
#include "support/data.hpp"
#include "support/peak.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <benchmark/benchmark.h>

#ifdef SOFATTN_BENCH_OPENBLAS
#include <cblas.h>
#endif
#ifdef SOFATTN_BENCH_DNNL
#include <dnnl.hpp>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <numbers>
#include <string>
#include <type_traits>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr index_t block = 512; // queries; 128 and 256 are no faster
constexpr index_t tile = 512;  // keys

#ifdef SOFATTN_BENCH_OPENBLAS
/// sgemm of OpenBLAS, one thread for each caller.
template <index_t Dim>
struct openblas {
    using element = float;
    openblas() { openblas_set_num_threads(1); }
    void logits(float const* q, float const* k, float* to) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, block, tile, Dim, 1.0f, q, Dim, k, Dim,
                    0.0f, to, tile);
    }
    void add(float const* weights, float const* v, float* to) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, block, Dim, tile, 1.0f, weights,
                    tile, v, Dim, 1.0f, to, Dim);
    }
};
#endif

#ifdef SOFATTN_BENCH_DNNL
/// matmul of oneDNN; inside a parallel region it takes one thread.
template <class Element, index_t Dim>
class onednn {
public:
    using element = Element;
    onednn()
        : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_),
          logits_(engine_, type, {block, Dim}, {Dim, tile}, {1, Dim}, {block, tile}, false),
          add_(engine_, type, {block, tile}, {tile, Dim}, {Dim, 1}, {block, Dim}, true) {}
    void logits(Element const* q, Element const* k, float* to) { logits_.run(stream_, q, k, to); }
    void add(Element const* weights, Element const* v, float* to) {
        add_.run(stream_, weights, v, to);
    }

private:
    static constexpr auto type = std::is_same_v<Element, float> ? dnnl::memory::data_type::f32
                                                                : dnnl::memory::data_type::bf16;
    using dims = dnnl::memory::dims;

    class product {
    public:
        product(dnnl::engine const& engine, dnnl::memory::data_type of, dims a, dims b,
                dims b_strides, dims c, bool adds)
            : a_({a, of, dims{a[1], 1}}, engine, nullptr), b_({b, of, b_strides}, engine, nullptr),
              c_({c, dnnl::memory::data_type::f32, dims{c[1], 1}}, engine, nullptr) {
            dnnl::post_ops sum;
            dnnl::primitive_attr attributes;
            if (adds) {
                sum.append_sum(1.0f);
                attributes.set_post_ops(sum);
            }
            primitive_ = dnnl::matmul(dnnl::matmul::primitive_desc(
                dnnl::matmul::desc(a_.get_desc(), b_.get_desc(), c_.get_desc()), attributes,
                engine));
        }
        void run(dnnl::stream& stream, Element const* a, Element const* b, float* c) {
            a_.set_data_handle(const_cast<Element*>(a));
            b_.set_data_handle(const_cast<Element*>(b));
            c_.set_data_handle(c);
            primitive_.execute(stream,
                               {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, b_}, {DNNL_ARG_DST, c_}});
            stream.wait();
        }

    private:
        dnnl::memory a_;
        dnnl::memory b_;
        dnnl::memory c_;
        dnnl::matmul primitive_;
    };

    dnnl::engine engine_;
    dnnl::stream stream_;
    product logits_;
    product add_;
};
#endif

/// One thread's share: the library's products, and the softmax of this one's own kernels.
template <class Products, index_t Dim>
class flash_attention {
    using element = typename Products::element;
    using lanes = exec::vector_float;

public:
    flash_attention()
        : queries_(block * Dim), weights_(block * tile), logits_(block * tile), sums_(block * Dim) {
    }

    void operator()(float const* q, element const* k, element const* v, float* out, index_t first) {
        auto const octaves =
            static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(Dim)));
        for (std::size_t i = 0; i < queries_.size(); ++i) {
            queries_[i] = element(q[first * Dim + static_cast<index_t>(i)] * octaves);
        }
        std::fill(sums_.begin(), sums_.end(), 0.0f);
        max_.fill(-4e30f);
        sum_.fill(0.0f);
        for (index_t key = 0; key < first + block; key += tile) {
            products_.logits(queries_.data(), k + key * Dim, logits_.data());
            for (index_t r = 0; r < block; ++r) {
                weigh(r, std::min(tile, first + r + 1 - key));
            }
            products_.add(weights_.data(), v + key * Dim, sums_.data());
        }
        for (index_t r = 0; r < block; ++r) {
            for (index_t d = 0; d < Dim; ++d) {
                out[(first + r) * Dim + d] = sums_[at(r * Dim + d)] / sum_[at(r)];
            }
        }
    }

private:
    static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

    void weigh(index_t r, index_t visible) {
        float* const row = logits_.data() + r * tile;
        std::fill(row + std::max<index_t>(visible, 0), row + tile, -8e30f);
        lanes top(max_[at(r)]);
        for (index_t i = 0; i < tile; i += exec::vector_width) {
            top = exec::larger(top, exec::load(row + i));
        }
        lane_array side{};
        exec::store(side.data(), top);
        float const max = *std::max_element(side.begin(), side.end());
        float const factor = std::exp2(max_[at(r)] - max);
        lanes sum(0.0f);
        for (index_t i = 0; i < tile; i += exec::vector_width) {
            lanes const weight = exec::exp2_of_negative(exec::load(row + i) - lanes(max));
            sum = sum + weight;
            exec::store(row + i, weight);
        }
        // bf16: the compiler's conversion, which it makes of vector instructions.
        for (index_t i = 0; i < tile; ++i) {
            weights_[at(r * tile + i)] = element(row[i]);
        }
        exec::store(side.data(), sum);
        sum_[at(r)] *= factor;
        for (float const x : side) {
            sum_[at(r)] += x;
        }
        max_[at(r)] = max;
        if (factor != 1.0f) {
            for (index_t d = 0; d < Dim; ++d) {
                sums_[at(r * Dim + d)] *= factor;
            }
        }
    }

    using lane_array = std::array<float, static_cast<std::size_t>(exec::vector_width)>;

    Products products_;
    std::vector<element> queries_;
    std::vector<element> weights_;
    std::vector<float> logits_;
    std::vector<float> sums_;
    std::array<float, block> max_{};
    std::array<float, block> sum_{};
};

template <class Products, index_t Dim>
void prefill(benchmark::State& state, index_t tokens, index_t threads) {
    using element = typename Products::element;
    generator random;
    auto const values = [&] {
        std::vector<float> result(static_cast<std::size_t>(tokens * Dim));
        std::generate(result.begin(), result.end(),
                      [&] { return static_cast<float>(random.normal()); });
        return result;
    };
    auto const q = values();
    auto const stored = [](std::vector<float> const& from) {
        std::vector<element> to;
        std::transform(from.begin(), from.end(), std::back_inserter(to),
                       [](float x) { return element(x); });
        return to;
    };
    auto const k = stored(values());
    auto const v = stored(values());
    std::vector<float> output(q.size());
    exec::openmp const run(threads);
    std::vector<flash_attention<Products, Dim>> each(static_cast<std::size_t>(threads));
    auto const start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        index_t const blocks = tokens / block;
        run(blocks, [&](index_t task, index_t thread) {
            each[static_cast<std::size_t>(thread)](q.data(), k.data(), v.data(), output.data(),
                                                   (blocks - 1 - task) * block);
        });
        benchmark::DoNotOptimize(output.data());
        benchmark::ClobberMemory();
    }
    std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
    // The same attention?
    view<float const, axis::head, axis::query, axis::dim> const queries(q.data(), {1, tokens, Dim});
    view<element const, axis::kv_head, axis::key, axis::dim> const keys(k.data(), {1, tokens, Dim});
    problem<float, element> const given{
        queries, keys, {v.data(), {1, tokens, Dim}}, /*causal=*/true};
    std::vector<float> expected(output.size());
    std::vector<std::byte> workspace(dense_workspace_bytes(given.shape(), threads));
    dense_attention(given, {expected.data(), {1, tokens, Dim}}, workspace, run);
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < output.size(); ++i) {
        double const off = double{output[i]} - double{expected[i]};
        error += off * off;
        size += double{expected[i]} * double{expected[i]};
    }
    if (!(error <= 1e-4 * size)) {
        state.SkipWithError("not the attention that it should be");
    }
    double const flops = 4.0 * static_cast<double>(tokens * tokens * Dim) / 2 *
                         static_cast<double>(state.iterations()) / time.count();
    state.counters["gflops"] = flops / 1e9;
    state.counters["of_peak"] =
        flops / (std::is_same_v<element, float> ? peak_flops(threads) : peak_bf16_flops(threads));
}

template <class Products, index_t Dim>
void add_rival(std::string const& name) {
    index_t const tokens = 8192;
    index_t const threads = 2; // where one is asked for, oneDNN takes more
    add("attention/dense/" + name + "/tokens:" + std::to_string(tokens) +
            "/dim:" + std::to_string(Dim) + "/threads:" + std::to_string(threads),
        [=](benchmark::State& state) { prefill<Products, Dim>(state, tokens, threads); })
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
}

[[maybe_unused]] bool const added = [] {
#ifdef SOFATTN_BENCH_OPENBLAS
    add_rival<openblas<128>, 128>("openblas/type:f32");
#endif
#ifdef SOFATTN_BENCH_DNNL
    add_rival<onednn<float, 128>, 128>("onednn/type:f32");
    add_rival<onednn<bfloat16, 128>, 128>("onednn/type:bf16");
#endif
    return true;
}();

} // namespace
} // namespace sofattn::bench
