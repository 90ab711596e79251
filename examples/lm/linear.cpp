// SPDX-License-Identifier: MIT
#include "lm/linear.hpp"

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>

#include <cblas.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

namespace sofattn::lm {

namespace {

/// Threads are ours: each calls the BLAS for a piece of its own.
void let_blas_stay_on_its_thread() {
    static bool const done = [] {
        openblas_set_num_threads(1);
        return true;
    }();
    static_cast<void>(done);
}

template <class T>
void convert(T const* from, index_t count, float* to) {
    for (index_t i = 0; i < count; ++i) {
        to[i] = to_float(from[i]);
    }
}

/// Outputs whose weights, as floats, stay in a core's second cache, and rows enough to be worth
/// the conversion.
constexpr index_t piece_floats = 1 << 17;
constexpr index_t piece_rows = 512;
constexpr index_t piece_least = 16;

} // namespace

linear::linear(stored_numbers weights, index_t out, index_t in, std::vector<float> bias)
    : weights_(weights), out_(out), in_(in), bias_(std::move(bias)) {
    SOFATTN_ASSERT(std::visit([](auto const& w) { return std::ssize(w); }, weights_) == out * in);
    SOFATTN_ASSERT(bias_.empty() || std::ssize(bias_) == out);
    let_blas_stay_on_its_thread();
}

void linear::row(index_t at, float* to) const {
    std::visit([&](auto const& w) { convert(w.data() + at * in_, in_, to); }, weights_);
}

void linear::operator()(float const* x, index_t rows, float* y, exec::openmp const& run) const {
    index_t const count = std::clamp(piece_floats / in_, piece_least, std::max(piece_least, out_));
    index_t const pieces = ceil_div(out_, count);
    std::vector<float> scratch(static_cast<std::size_t>(run.threads() * count * in_));
    run(pieces * ceil_div(rows, piece_rows), [&](index_t task, index_t thread) {
        index_t const first_row = task / pieces * piece_rows;
        index_t const first = task % pieces * count;
        piece(x + first_row * in_, std::min(piece_rows, rows - first_row), first,
              std::min(count, out_ - first), scratch.data() + thread * count * in_,
              y + first_row * out_);
    });
}

void linear::piece(float const* x, index_t rows, index_t first, index_t count, float* scratch,
                   float* y) const {
    float const* const weights = std::visit(
        [&](auto const& w) -> float const* {
            auto const* const from = w.data() + first * in_;
            if constexpr (std::is_same_v<decltype(from), float const* const>) {
                return from;
            } else {
                convert(from, count * in_, scratch);
                return scratch;
            }
        },
        weights_);
    auto const size = [](index_t n) { return static_cast<blasint>(n); };
    if (rows == 1) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, size(count), size(in_), 1.0f, weights, size(in_),
                    x, 1, 0.0f, y + first, 1);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size(rows), size(count), size(in_),
                    1.0f, x, size(in_), weights, size(in_), 0.0f, y + first, size(out_));
    }
    if (!bias_.empty()) {
        for (index_t r = 0; r < rows; ++r) {
            for (index_t o = 0; o < count; ++o) {
                y[r * out_ + first + o] += bias_[static_cast<std::size_t>(first + o)];
            }
        }
    }
}

} // namespace sofattn::lm
