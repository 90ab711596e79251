// SPDX-License-Identifier: MIT
// What stands for a page of keys: a first level before the scores of single keys.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/exec/int8_codes.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

namespace sofattn::dlzs {

/// A page's most outlying key, and mean and variance of the others, channel by channel.
///
/// If logits of the others were normal, the logarithm of their mean weight were their mean logit and
/// half the variance, which channels that do not vary together make up as sums: two dot products, and
/// a third for the outlier, say what the page weighs. Without the outlier, keys that draw all
/// attention wherever they stand, as first tokens do, would be lost among their neighbours.
enum class sketch_part {
    mean,     ///< of the others
    variance, ///< of the others
    outlier
};
inline constexpr std::size_t sketch_parts = 3;

/// Sketches of the whole pages of one KV head, in bytes with a step per channel. Only read once built.
///
/// in     keys   [key, dim], real units, any strides
/// out    codes and steps of every part, [page, dim]
/// pre    finite keys
/// error  none; allocates
/// events none: this is no circuit
/// exact  the same bytes on every target: sums are in double, in the order of keys, products exact
/// paper  not in the paper. Pages by their ranges are Quest's (arXiv 2406.10774); a page's mean weight
///        by mean and variance is the second-order cumulant expansion
class page_sketches {
public:
    static constexpr index_t keys = exec::page_keys;

    page_sketches() = default;

    template <storage_float T>
    explicit page_sketches(key_view<T const> all)
        : dim_(all.template extent<axis::dim>()), pages_(all.template extent<axis::key>() / keys),
          centre_({dim_}) {
        auto const columns = static_cast<std::size_t>(dim_);
        std::ranges::copy(column_means(all), centre_.view().data());
        float const* const middle = centre_.cview().data();
        tensor<float, axis::key, axis::dim> page({keys, dim_});
        tensor<double, axis::key, axis::dim> sums({pages_, dim_});
        tensor<double, axis::key, axis::dim> squares({pages_, dim_});
        auto const centred = [&](index_t p) {
            for (index_t k = 0; k < keys; ++k) {
                float* const row = &page(k, 0);
                for_each_float(all, p * keys + k,
                               [&](index_t d, float x) { row[d] = x - middle[d]; });
            }
        };
        std::vector<double> within(columns, 0.0);
        for (index_t p = 0; p < pages_; ++p) {
            centred(p);
            double* const sum = &sums(p, 0);
            double* const square = &squares(p, 0);
            for (index_t k = 0; k < keys; ++k) {
                float const* const row = &page(k, 0);
                for (std::size_t d = 0; d < columns; ++d) {
                    auto const x = static_cast<double>(row[d]);
                    sum[d] += x;
                    square[d] += x * x; // exact
                }
            }
            for (std::size_t d = 0; d < columns; ++d) {
                within[d] += variance(sum[d], square[d], keys);
            }
        }
        // Channels count by how far keys of a page lie apart in them; powers of two keep products exact.
        std::vector<double> weights(columns, 0.0);
        for (std::size_t d = 0; d < columns && pages_ > 0; ++d) {
            double const mean = within[d] / static_cast<double>(pages_);
            weights[d] = mean >= 0x1p-200 ? std::ldexp(1.0, -std::ilogb(mean)) : 0.0;
        }
        std::array<tensor<float, axis::key, axis::dim>, sketch_parts> real;
        for (auto& part : real) {
            part = tensor<float, axis::key, axis::dim>({pages_, dim_});
        }
        for (index_t p = 0; p < pages_; ++p) {
            centred(p);
            float const* const far = &page(outlier_of(page, &sums(p, 0), weights), 0);
            for (index_t d = 0; d < dim_; ++d) {
                auto const x = static_cast<double>(far[d]);
                double const sum = sums(p, d) - x;
                double const square = squares(p, d) - x * x;
                real[0](p, d) = static_cast<float>(sum / static_cast<double>(keys - 1));
                real[1](p, d) = static_cast<float>(variance(sum, square, keys - 1));
                real[2](p, d) = far[d];
            }
        }
        for (std::size_t i = 0; i < sketch_parts; ++i) {
            parts_[i] = coded(quantise<8>(real[i].cview(), granularity::per_channel),
                              static_cast<sketch_part>(i));
        }
    }

    [[nodiscard]] index_t pages() const noexcept { return pages_; }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    /// [dim] and zeros up to a whole cache line: the mean of all keys, which sketches are relative to.
    [[nodiscard]] float const* centre() const noexcept { return centre_.cview().data(); }
    [[nodiscard]] key_panels const& panels(sketch_part part) const noexcept {
        return of(part).panels;
    }
    /// What a query, or its squares, is multiplied by: [dim in whole cache lines], steps, then 0. log2 of the
    /// mean of 2^x is half of ln 2 times the variance of x above the mean of x, so variances' steps are
    /// times that.
    [[nodiscard]] float const* units(sketch_part part) const noexcept {
        return of(part).units.cview().data();
    }
    /// Real units per code; 0 where all codes are.
    [[nodiscard]] float step(sketch_part part, index_t d) const noexcept {
        return of(part).steps[static_cast<std::size_t>(d)];
    }

private:
    struct coded_part {
        key_panels panels; ///< pages in the place of keys
        std::vector<float> steps;
        tensor<float, axis::dim> units;
    };

    [[nodiscard]] coded_part const& of(sketch_part part) const noexcept {
        return parts_[static_cast<std::size_t>(part)];
    }
    static coded_part coded(quantised<8, axis::key, axis::dim> const& from, sketch_part part) {
        coded_part made{
            key_panels(from.codes.cview()), {}, tensor<float, axis::dim>({std::ssize(from.steps)})};
        float const factor =
            part == sketch_part::variance ? static_cast<float>(0.5 * std::numbers::ln2) : 1.0f;
        for (quantiser_step const& s : from.steps) {
            made.units(std::ssize(made.steps)) = s.inverse > 0.0f ? s.step * factor : 0.0f;
            made.steps.push_back(s.inverse > 0.0f ? s.step : 0.0f);
        }
        return made;
    }

    /// Of `count` numbers, from their sum and that of their squares; the mean as float, whose square
    /// is exact.
    [[nodiscard]] static double variance(double sum, double square, index_t count) noexcept {
        auto const n = static_cast<double>(count);
        auto const mean = static_cast<double>(static_cast<float>(sum / n));
        double const found = square / n - mean * mean;
        return found > 0.0 ? found : 0.0;
    }

    /// The key farthest from the mean; of equal ones the first.
    static index_t outlier_of(tensor<float, axis::key, axis::dim> const& page, double const* sums,
                              std::span<double const> weights) noexcept {
        constexpr std::size_t lanes = 16; // sums side by side, so that they become registers
        index_t far = 0;
        double most = -1.0;
        for (index_t k = 0; k < keys; ++k) {
            float const* const row = &page(k, 0);
            std::array<double, lanes> sum{};
            std::size_t const columns = weights.size();
            auto const term = [&](std::size_t d) {
                auto const mean = static_cast<float>(sums[d] * (1.0 / static_cast<double>(keys)));
                auto const off = static_cast<double>(row[d] - mean);
                return off * off * weights[d];
            };
            std::size_t d = 0;
            for (; d + lanes <= columns; d += lanes) {
                for (std::size_t i = 0; i < lanes; ++i) {
                    sum[i] += term(d + i);
                }
            }
            for (std::size_t i = 0; d + i < columns; ++i) {
                sum[i] += term(d + i);
            }
            double distance = 0;
            for (double const part : sum) {
                distance += part;
            }
            if (distance > most) {
                most = distance;
                far = k;
            }
        }
        return far;
    }

    index_t dim_ = 0;
    index_t pages_ = 0;
    tensor<float, axis::dim> centre_;
    std::array<coded_part, sketch_parts> parts_;
};

/// What a query asks of sketches: codes of itself at the means' steps, of its squares at the variances', and
/// of itself at the outliers'.
struct sketch_query {
    std::array<std::int32_t, sketch_parts> start{};
    std::array<float, sketch_parts> positions{}; ///< per unit of score
};

/// in     query   [dim in whole cache lines] octaves of weight per real unit of the key; 0 beyond dim
///        positions_per_octave
/// out    packed  [dot_steps(dim) in whole cache lines] of each part, `part_stride` apart
/// scratch: real  [dim in whole cache lines]
/// exact  the same codes on every target
inline sketch_query code_sketch_query(page_sketches const& sketches, float const* query,
                                      float positions_per_octave, float* real, std::int32_t* packed,
                                      index_t part_stride) noexcept {
    index_t const width = exec::whole_vectors(sketches.dim());
    sketch_query asked;
    for (std::size_t i = 0; i < sketch_parts; ++i) {
        auto const part = static_cast<sketch_part>(i);
        float const* const units = sketches.units(part);
        exec::vector_float most(0.0f);
        for (index_t d = 0; d < width; d += exec::vector_width) {
            exec::vector_float const q = exec::load(query + d);
            exec::vector_float const x =
                (part == sketch_part::variance ? q * q : q) * exec::load(units + d);
            exec::store(real + d, x);
            most = exec::larger(most, exec::larger(x, exec::vector_float(0.0f) - x));
        }
        float const largest = exec::largest(most);
        float const inverse = exec::codes_per_unit(largest);
        std::int32_t const total = exec::row_codes(
            real, width, inverse,
            reinterpret_cast<std::int8_t*>(packed + static_cast<index_t>(i) * part_stride));
        asked.start[i] = exec::dot_start(total);
        asked.positions[i] =
            inverse > 0.0f ? largest / exec::code_most * positions_per_octave : 0.0f;
    }
    return asked;
}

} // namespace sofattn::dlzs
