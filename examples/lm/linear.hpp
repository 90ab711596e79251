// SPDX-License-Identifier: MIT
// Matrix products with weights as they lie in a file, through the system's BLAS.
#pragma once

#include "lm/safetensors.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <vector>

namespace sofattn::lm {

/// y = W x + b for rows of x. 16-bit weights are converted piece by piece while they are used, so
/// that memory holds them once, as the file does.
///
/// in     x  [row, in], rows contiguous
/// out    y  [row, out], rows contiguous
/// exact  the same bits for any number of threads: the pieces depend on the shapes alone, and each
///        is one call of a BLAS with one thread. One row and many may differ by rounding.
class linear {
public:
    linear() = default;
    /// weights [out, in], bias [out] or empty; the file must outlive it.
    linear(stored_numbers weights, index_t out, index_t in, std::vector<float> bias = {});

    void operator()(float const* x, index_t rows, float* y, exec::openmp const& run) const;

    [[nodiscard]] index_t out() const noexcept { return out_; }
    [[nodiscard]] index_t in() const noexcept { return in_; }
    /// Weights of output `at`, as floats. [in]
    void row(index_t at, float* to) const;

private:
    void piece(float const* x, index_t rows, index_t first, index_t count, float* scratch,
               float* y) const;

    stored_numbers weights_;
    index_t out_ = 0;
    index_t in_ = 0;
    std::vector<float> bias_;
};

} // namespace sofattn::lm
