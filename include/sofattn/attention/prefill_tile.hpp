// SPDX-License-Identifier: MIT
// One row's kept keys of one tile: their weights, and what they add to the output.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sads/softmax_weight.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn {

/// Rows of floats, a whole number of registers each.
struct prefill_tile_rows {
    float const* data = nullptr;
    index_t row = 0; ///< floats from one to the next
};

/// Weights of a tile's kept keys and stand-ins of its dropped ones. Weights are relative to the
/// row's best predicted logit.
class prefill_tile {
    using kept = sads::kept_tile;

public:
    static constexpr index_t segment = kept::segment;

    /// The keys that `cut` keeps (sads::kept_tile).
    template <bool Weighs>
    void choose(std::span<std::int16_t const> positions, sads::looked_pages const& pages,
                sads::row_cut cut) noexcept {
        kept_.choose<Weighs>(positions, pages, cut);
        all_ = 0;
    }
    /// A forced key besides.
    void add(std::int16_t key, std::int16_t position) noexcept { kept_.add(key, position); }

    /// The kept keys, once weighed.
    [[nodiscard]] std::span<std::int32_t const> keys() const noexcept {
        return std::span(which_).first(static_cast<std::size_t>(kept_.count()));
    }

    /// Ends the list of kept keys. Those of positions above `computed` will be computed as
    /// query.key, the others have their predicted logits.
    void list(std::int16_t top, std::int16_t computed) noexcept {
        constexpr float octave = 1.0f / static_cast<float>(1 << sads::weight_scale::position_bits);
        exec::vector_int32 const best(top);
        for (index_t n = 0; n < kept_.count(); n += exec::vector_width) {
            exec::store(which_.data() + n, exec::load_widened(kept_.keys().data() + n));
            exec::vector_int32 const away = exec::load_widened(kept_.positions() + n) - best;
            exec::store(weight_.data() + n, exec::to_float(away) * exec::vector_float(octave));
        }
        computed_ = list_above(computed);
    }
    /// Asks for the keys that `weigh` will read. Values are left to the registers' own loads, which
    /// are many and independent.
    [[gnu::always_inline]] void ask_for(prefill_tile_rows keys, index_t width) const noexcept {
        for (index_t n = 0; n < computed_; ++n) {
            auto const at = static_cast<std::size_t>(near_[static_cast<std::size_t>(n)]);
            exec::prefetch(keys.data + which_[at] * keys.row,
                           width * static_cast<index_t>(sizeof(float)));
        }
    }

    /// Weights of the kept keys; returns their sum.
    ///
    /// query [width] in octaves, `reference` of the top, in octaves too; keys [key, width]
    float weigh(float reference, float const* query, index_t width,
                prefill_tile_rows keys) noexcept {
        for (index_t n = 0; n < computed_; n += exec::vector_width) {
            index_t const some = std::min(exec::vector_width, computed_ - n);
            std::array<std::int32_t, static_cast<std::size_t>(exec::vector_width)> which;
            std::array<float, static_cast<std::size_t>(exec::vector_width)> logits;
            auto const near = std::span(near_).subspan(static_cast<std::size_t>(n),
                                                       static_cast<std::size_t>(some));
            for (std::size_t i = 0; i < near.size(); ++i) {
                which[i] = which_[static_cast<std::size_t>(near[i])];
            }
            exec::store(logits.data(),
                        exec::smaller(sufa::products_of_rows(query, width, keys.data, keys.row,
                                                             which.data(), some) -
                                          exec::vector_float(reference),
                                      exec::vector_float(exponent_most)));
            for (std::size_t i = 0; i < near.size(); ++i) {
                weight_[static_cast<std::size_t>(near[i])] = logits[i];
            }
        }
        index_t const count = kept_.count();
        exec::vector_float sum(0.0f);
        for (index_t n = 0; n < count; n += exec::vector_width) {
            exec::vector_float const weight =
                exec::exp2_of_negative(exec::load(weight_.data() + n));
            exec::store(weight_.data() + n, weight);
            sum = sum + weight;
        }
        all_ = count;
        return exec::sum_of(sum);
    }

    /// What stands for the dropped keys: shares of whole segments' sums, and behind the kept keys all
    /// visible ones of the last, cut segment. What that gives to kept keys as well is taken off
    /// them. Segments of which nothing was looked at have no part in it. Returns the weight of the
    /// dropped keys.
    float compensate(index_t visible) noexcept {
        std::array<float, static_cast<std::size_t>(kept::segments)> share{};
        auto const kept_in = count_kept();
        float total = 0.0f;
        segment_weight_.fill(0.0f);
        for (index_t s = 0; s * segment < visible; ++s) {
            index_t const keys = std::min(segment, visible - s * segment);
            index_t const dropped = keys - kept_in[static_cast<std::size_t>(s)];
            if (dropped == 0 || !kept_.is_looked_at(s)) {
                continue;
            }
            float const weight = kept_.dropped_weight(s);
            float const each = weight / static_cast<float>(dropped);
            total += weight;
            share[static_cast<std::size_t>(s)] = each;
            if (keys == segment) {
                segment_weight_[static_cast<std::size_t>(s)] = each;
            } else {
                for (index_t k = s * segment; k < visible; ++k, ++all_) {
                    which_[static_cast<std::size_t>(all_)] = static_cast<std::int32_t>(k);
                    weight_[static_cast<std::size_t>(all_)] = each;
                }
            }
        }
        for (index_t n = 0; n < kept_.count(); n += exec::vector_width) {
            // Behind the kept keys there may be anything, even keys of the cut segment.
            index_t const end = std::min(n + exec::vector_width, kept_.count());
            if (end == n + exec::vector_width) {
                auto const at = exec::load(which_.data() + n) >> segment_bits;
                exec::store(weight_.data() + n,
                            exec::load(weight_.data() + n) - exec::looked_up(share, at));
                continue;
            }
            for (index_t i = n; i < end; ++i) {
                auto const at = static_cast<std::size_t>(i);
                weight_[at] -= share[static_cast<std::size_t>(which_[at] >> segment_bits)];
            }
        }
        return total;
    }

    /// Which places of register v, as chosen from, are kept.
    [[nodiscard]] exec::lane_mask mask(index_t v) const noexcept { return kept_.mask(v); }
    /// Weights of `registers` registers of places, 0 where none is kept.
    void spread_weights(index_t registers, float* to) const noexcept {
        float const* from = weight_.data();
        for (index_t v = 0; v < registers; ++v) {
            exec::spread(kept_.mask(v), from, to + v * exec::short_width);
            from += std::popcount(kept_.mask(v));
        }
    }
    /// [segment], of sums of whole segments.
    [[nodiscard]] std::span<float const, kept::segments> segment_weights() const noexcept {
        return segment_weight_;
    }
    /// Keys that were chosen, beside forced ones.
    [[nodiscard]] index_t chosen() const noexcept { return kept_.chosen(); }
    /// output [width] += weights times values from the `from`th on: kept keys, behind the chosen ones
    /// forced ones, and those of a cut segment.
    void add_values(index_t from, float* output, index_t width,
                    prefill_tile_rows values) const noexcept {
        sufa::add_weighted_rows(output, width, values.data, values.row, which_.data() + from,
                                weight_.data() + from, all_ - from);
    }

private:
    static constexpr int segment_bits = 6;
    static_assert(segment == index_t{1} << segment_bits);
    /// Weights stay finite where a prediction is off by more than any real one.
    static constexpr float exponent_most = 100.0f;
    static constexpr auto room =
        static_cast<std::size_t>(kept::most + segment + 2 * exec::short_width);

    /// Kept keys of every segment.
    [[nodiscard]] std::array<index_t, static_cast<std::size_t>(kept::segments)>
    count_kept() const noexcept {
        std::array<index_t, static_cast<std::size_t>(kept::segments)> below{};
        for (index_t n = 0; n < kept_.count(); n += exec::vector_width) {
            index_t const some = std::min(exec::vector_width, kept_.count() - n);
            exec::lane_mask const these = ~exec::lane_mask{0} >> (32 - some);
            auto const which = exec::load(which_.data() + n);
            for (std::size_t s = 0; s < below.size(); ++s) {
                exec::vector_int32 const end((static_cast<std::int32_t>(s) + 1) << segment_bits);
                below[s] += std::popcount(exec::lanes_below(which, end) & these);
            }
        }
        for (std::size_t s = below.size() - 1; s > 0; --s) {
            below[s] -= below[s - 1];
        }
        return below;
    }

    /// Numbers of the kept keys of positions above `limit`, in near_.
    index_t list_above(std::int16_t limit) noexcept {
        exec::vector_int16 const above = exec::all_shorts(limit);
        exec::vector_int16 const step = exec::all_shorts(static_cast<int>(exec::short_width));
        exec::vector_int16 number = exec::short_numbers();
        index_t near = 0;
        for (index_t n = 0; n < kept_.count(); n += exec::short_width) {
            exec::lane_mask const mask =
                exec::lanes_above(exec::load(kept_.positions() + n), above);
            near += exec::compress(mask, number, near_.data() + near);
            number = number + step;
        }
        return near;
    }

    kept kept_;
    index_t computed_ = 0; ///< of near_
    index_t all_ = 0;      ///< of which_
    std::array<float, static_cast<std::size_t>(kept::segments)> segment_weight_{};
    alignas(64) std::array<std::int16_t, room> near_{};
    alignas(64) std::array<std::int32_t, room> which_{};
    alignas(64) std::array<float, room> weight_{};
};

} // namespace sofattn
