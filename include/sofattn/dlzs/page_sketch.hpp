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
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>

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
            parts_[i] = coded(quantise<8>(real[i].cview(), granularity::per_channel));
        }
    }

    [[nodiscard]] index_t pages() const noexcept { return pages_; }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    /// [dim] and zeros up to a whole cache line: the mean of all keys, which sketches are relative to.
    [[nodiscard]] float const* centre() const noexcept { return centre_.cview().data(); }
    [[nodiscard]] key_panels const& panels(sketch_part part) const noexcept {
        return of(part).panels;
    }
    /// Real units per code; 0 where all codes are.
    [[nodiscard]] float step(sketch_part part, index_t d) const noexcept {
        return of(part).steps[static_cast<std::size_t>(d)];
    }

private:
    struct coded_part {
        key_panels panels; ///< pages in the place of keys
        std::vector<float> steps;
    };

    [[nodiscard]] coded_part const& of(sketch_part part) const noexcept {
        return parts_[static_cast<std::size_t>(part)];
    }
    static coded_part coded(quantised<8, axis::key, axis::dim> const& from) {
        coded_part part{key_panels(from.codes.cview()), {}};
        for (quantiser_step const& s : from.steps) {
            part.steps.push_back(s.inverse > 0.0f ? s.step : 0.0f);
        }
        return part;
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

/// What a few queries that look alike ask of sketches: codes of their mean, of their mean square, and
/// of their mean again, at the outliers' steps.
struct sketch_query {
    std::array<std::int32_t, sketch_parts> start{};
    std::array<float, sketch_parts> positions{}; ///< per unit of score
};

/// in     sum, squares  [dim] over `rows` queries, in octaves of weight per real unit of the key
///        positions_per_octave
/// out    packed        [dot_steps(dim)] of each part, `part_stride` apart
/// exact  the same codes on every target
inline sketch_query code_sketch_query(page_sketches const& sketches, index_t rows,
                                      std::span<double const> sum, std::span<double const> squares,
                                      double positions_per_octave, std::span<float> real,
                                      std::span<std::int32_t> packed,
                                      std::size_t part_stride) noexcept {
    auto const dims = static_cast<std::size_t>(sketches.dim());
    auto const steps = static_cast<std::size_t>(dot_steps(sketches.dim()));
    SOFATTN_DASSERT(sum.size() >= dims && squares.size() >= dims && real.size() >= dims);
    SOFATTN_DASSERT(packed.size() >= (sketch_parts - 1) * part_stride + steps);
    auto const n = static_cast<double>(rows);
    sketch_query query;
    for (std::size_t i = 0; i < sketch_parts; ++i) {
        auto const part = static_cast<sketch_part>(i);
        // log2 of the mean of 2^x is half of ln 2 times the variance of x above the mean of x.
        double const factor = part == sketch_part::variance ? 0.5 * std::numbers::ln2 / n : 1.0 / n;
        double const* const from = part == sketch_part::variance ? squares.data() : sum.data();
        for (std::size_t d = 0; d < dims; ++d) {
            real[d] =
                static_cast<float>(from[d] * factor) * sketches.step(part, static_cast<index_t>(d));
        }
        constexpr int limit = code_limit<8>;
        auto const step = quantiser_step::covering(largest_magnitude(real.first(dims)), limit);
        auto const words = packed.subspan(i * part_stride, steps);
        words.back() = 0;
        auto* const bytes = reinterpret_cast<std::int8_t*>(words.data());
        std::int32_t total = 0;
        for (std::size_t d = 0; d < dims; ++d) {
            auto const code = static_cast<std::int8_t>(step.code(real[d], limit));
            bytes[d] = code;
            total += code;
        }
        query.start[i] = exec::dot_start(total);
        query.positions[i] = step.step * static_cast<float>(positions_per_octave);
    }
    return query;
}

} // namespace sofattn::dlzs
