// SPDX-License-Identifier: MIT
// What stands for a page of keys: a first level before the scores of single keys.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/dlzs/sketched_page.hpp>
#include <sofattn/exec/int8_codes.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dlzs {

/// Sketches of the whole pages of one KV head, in bytes with a step per channel.
///
/// Centre, steps and what finds outliers are those of the first `calibrated_by` keys: all of them, or, of sketches
/// that grow, as many as `calibrated_by(keys)` says. A page behind those that lies beyond the range of a channel
/// doubles that channel's step, as often as it takes, and codes so far are halved: positions turn slow channels
/// of long contexts far from where they began. So sketches are a function of the keys and their number alone,
/// however they came.
///
/// in     keys   [key, dim], real units, any strides, or in pages of a pool
/// out    codes and steps of every part, [page, dim]
/// pre    finite keys, dim at most max_head_dim (SOFATTN_ASSERT)
/// error  none; allocates but where it says noexcept
/// events none: this is no circuit
/// exact  the same bytes on every target: sums are in double, in the order of keys, products exact
/// paper  not in the paper. Pages by their ranges are Quest's (arXiv 2406.10774); a page's mean weight
///        by mean and variance is the second-order cumulant expansion
class page_sketches {
public:
    static constexpr index_t keys = sketched_page::keys;

    page_sketches() = default;
    /// Of no page yet; grows.
    explicit page_sketches(index_t dim)
        : dim_(dim), centre_({dim}), weights_(static_cast<std::size_t>(dim), 0.0) {
        for (std::size_t i = 0; i < sketch_parts; ++i) {
            std::vector<quantiser_step> const none(weights_.size());
            parts_[i] = coded_part(none, static_cast<sketch_part>(i));
        }
    }
    /// Of all pages, calibrated on all keys.
    template <token_rows<axis::dim> Keys>
    explicit page_sketches(Keys const& all)
        : page_sketches(all, all.template extent<axis::key>()) {}
    /// Calibrated on the first `by` of them.
    template <token_rows<axis::dim> Keys>
    page_sketches(Keys const& all, index_t by) : page_sketches(all.template extent<axis::dim>()) {
        calibrate(all, by);
        reserve(all.template extent<axis::key>());
        append(all);
    }

    /// Of sketches that grow: the most keys of 16, 32, 64 and so on that are there, or 0. So all pages are coded
    /// anew whenever their number has doubled.
    [[nodiscard]] static constexpr index_t calibrated_by(index_t keys_there) noexcept {
        return keys_there < keys
                   ? 0
                   : static_cast<index_t>(std::bit_floor(static_cast<std::size_t>(keys_there)));
    }
    /// Keys that these are calibrated on.
    [[nodiscard]] index_t calibrated_by() const noexcept { return calibrated_by_; }

    /// Room for the pages of so many keys; appending up to there allocates nothing.
    void reserve(index_t keys_there) {
        for (coded_part& part : parts_) {
            part.panels.reserve(keys_there / keys);
        }
    }
    /// Takes the whole pages of `all` that it has not. The others are those that it has.
    /// pre: there is room
    template <token_rows<axis::dim> Keys>
    void append(Keys const& all) noexcept {
        sketched_page page;
        std::array<std::array<float, most>, sketch_parts> real;
        std::array<std::int8_t, most> codes;
        auto const columns = static_cast<std::size_t>(dim_);
        while ((pages() + 1) * keys <= all.template extent<axis::key>()) {
            index_t const pages_before = pages();
            page.read(all, pages_before, {centre(), columns});
            page.sketch(weights_, {real[0].data(), real[1].data(), real[2].data()});
            for (std::size_t i = 0; i < sketch_parts; ++i) {
                for (std::size_t d = 0; d < columns; ++d) {
                    if (parts_[i].widen(d, std::abs(real[i][d]))) {
                        widened_ = pages_before + 1;
                    }
                    codes[d] = static_cast<std::int8_t>(
                        parts_[i].steps[d].code(real[i][d], code_limit<8>));
                }
                parts_[i].panels.append({codes.data(), columns});
            }
        }
    }
    /// Whether those of so many keys, the first or more than there are, have the same centre and steps so far.
    [[nodiscard]] bool is_calibrated_for(index_t keys_there) const noexcept {
        return calibrated_by(keys_there) == calibrated_by_ && keys_there / keys >= widened_;
    }
    /// Forgets all pages but the whole ones of the first `keys_there`. pre: is_calibrated_for(keys_there)
    void truncate(index_t keys_there) noexcept {
        SOFATTN_ASSERT(is_calibrated_for(keys_there));
        for (coded_part& part : parts_) {
            part.panels.truncate(std::min(pages(), keys_there / keys));
        }
    }

    [[nodiscard]] index_t pages() const noexcept { return parts_.back().panels.keys(); }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    /// [dim] and zeros up to a whole cache line: the mean of the keys that it is calibrated on, which
    /// sketches are relative to.
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
        quantiser_step const& s = of(part).steps[static_cast<std::size_t>(d)];
        return s.inverse > 0.0f ? s.step : 0.0f;
    }
    /// Of codes.
    [[nodiscard]] index_t bytes() const noexcept {
        index_t bytes = 0;
        for (coded_part const& part : parts_) {
            bytes += part.panels.pages() * part.panels.page_bytes();
        }
        return bytes;
    }

private:
    static constexpr auto most = static_cast<std::size_t>(max_head_dim);

    struct coded_part {
        coded_part() = default;
        coded_part(std::vector<quantiser_step> by, sketch_part part)
            : panels(key_panels::growing(std::ssize(by))), steps(std::move(by)),
              units({std::ssize(steps)}) {
            if (part == sketch_part::variance) {
                factor = static_cast<float>(0.5 * std::numbers::ln2);
            }
            for (std::size_t d = 0; d < steps.size(); ++d) {
                put_unit(d);
            }
        }

        /// Whether the step had to change for a magnitude to be in range.
        bool widen(std::size_t d, float magnitude) noexcept {
            constexpr int limit = code_limit<8>;
            quantiser_step& s = steps[d];
            if (s.inverse == 0.0f) { // all codes are 0
                s = quantiser_step::covering(magnitude, limit);
                put_unit(d);
                return s.inverse > 0.0f;
            }
            int shift = 0;
            for (; magnitude * s.inverse > static_cast<float>(limit) + 0.5f; ++shift) {
                s = {2 * s.step, s.inverse / 2};
            }
            if (shift == 0) {
                return false;
            }
            panels.recode(static_cast<index_t>(d), [by = std::min(shift, 8)](int code) {
                int const halved = (std::abs(code) + (1 << by >> 1)) >> by;
                return code < 0 ? -halved : halved;
            });
            put_unit(d);
            return true;
        }
        void put_unit(std::size_t d) noexcept {
            units(static_cast<index_t>(d)) =
                steps[d].inverse > 0.0f ? steps[d].step * factor : 0.0f;
        }

        key_panels panels; ///< pages in the place of keys
        std::vector<quantiser_step> steps;
        float factor = 1.0f; ///< of units, which are steps times that
        tensor<float, axis::dim> units;
    };

    [[nodiscard]] coded_part const& of(sketch_part part) const noexcept {
        return parts_[static_cast<std::size_t>(part)];
    }

    /// Centre, weights and steps of the first `by` keys.
    template <class Keys>
    void calibrate(Keys const& all, index_t by) {
        auto const columns = static_cast<std::size_t>(dim_);
        SOFATTN_ASSERT(columns <= most);
        calibrated_by_ = by;
        std::array<double, most> sums{};
        for (index_t k = 0; k < by; ++k) {
            for_each_float(all.template slice<axis::key>(k), [&sums](index_t d, float x) {
                sums[static_cast<std::size_t>(d)] += static_cast<double>(x);
            });
        }
        for (index_t d = 0; d < dim_ && by > 0; ++d) {
            centre_(d) =
                static_cast<float>(sums[static_cast<std::size_t>(d)] / static_cast<double>(by));
        }
        std::span<float const> const middle(centre(), columns);
        index_t const sample = by / keys; // pages
        sketched_page page;
        std::array<double, most> within{};
        for (index_t p = 0; p < sample; ++p) {
            page.read(all, p, middle);
            page.add_variances(within);
        }
        // Channels count by how far keys of a page lie apart in them; powers of two keep products exact.
        for (std::size_t d = 0; d < columns && sample > 0; ++d) {
            double const mean = within[d] / static_cast<double>(sample);
            weights_[d] = mean >= 0x1p-200 ? std::ldexp(1.0, -std::ilogb(mean)) : 0.0;
        }
        std::array<std::array<float, most>, sketch_parts> real;
        std::array<std::array<float, most>, sketch_parts> largest{};
        for (index_t p = 0; p < sample; ++p) {
            page.read(all, p, middle);
            page.sketch(weights_, {real[0].data(), real[1].data(), real[2].data()});
            for (std::size_t i = 0; i < sketch_parts; ++i) {
                for (std::size_t d = 0; d < columns; ++d) {
                    largest[i][d] = std::max(largest[i][d], std::abs(real[i][d]));
                }
            }
        }
        for (std::size_t i = 0; i < sketch_parts; ++i) {
            std::vector<quantiser_step> steps;
            for (std::size_t d = 0; d < columns; ++d) {
                steps.push_back(quantiser_step::covering(largest[i][d], code_limit<8>));
            }
            parts_[i] = coded_part(std::move(steps), static_cast<sketch_part>(i));
        }
    }

    index_t dim_ = 0;
    index_t calibrated_by_ = 0;
    index_t widened_ = 0; ///< pages when a step last changed
    tensor<float, axis::dim> centre_;
    std::vector<double> weights_; ///< [dim]
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
