// SPDX-License-Identifier: MIT
// FlashAttention-2 over all keys for a block of queries, both products of 8-bit codes.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/int8_codes.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_softmax.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/block_tiles.hpp>
#include <sofattn/sufa/int8_rows.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <span>

namespace sofattn::sufa {

/// Dense attention of a block of rows to the keys of one KV head, as dense_block, but with integers.
///
/// Queries, keys and values are coded by a step of their own each. Keys lose a mean first, which
/// changes no softmax, so any mean will do: that of at most 256 keys spread over all. A value's step
/// is multiplied into its key's weight before weights are coded, relative to the largest of a tile of
/// keys: a key that draws all attention and says little (a sink) leaves the others their digits. The
/// weights' sum takes the steps out again.
///
/// Keys and values are coded by every block anew: a tenth of the time of a block of 768 rows, and no
/// second copy of them has to be kept (half as large as a cache of bf16).
///
/// in     row(i)      [dim], query of row i, i < rows
///        visible(i)  key_range that row i attends to; neither end decreases in i
///        keys        [key, dim], values [key, value_dim]; any strides; logits = scale * q.k
/// out    output(i)   output_row, [value_dim] of row i, zeros where it sees no key
/// pre    rows <= rows_most(dim, value_dim, tiles); memory of `floats(dim, value_dim, tiles)` floats;
///        |logit| < 1e30
/// error  none
/// events none: this is no circuit
/// exact  deterministic, whoever runs it; rows do not depend on which others share their block, but
///        on all keys and values, seen or not, as those share a mean and steps. Logits, weights and
///        sums of a tile are integers, the same on every target that multiplies and adds floats apart;
///        floats join tiles. Within 4e-2 of a double-precision oracle (relative, Frobenius, of a
///        head) where logits spread by a few units, 1.5e-2 if they are diffuse and of 64 dimensions
///        or more; an error of codes grows with the logits themselves
/// paper  not in the paper; SageAttention (arXiv 2410.02367), with integer weights and values
class int8_block {
    static constexpr index_t panel = exec::tile_width;
    static constexpr index_t depth = exec::dot_depth;
    static_assert(block_tiles::keys_step % exec::tile_rows == 0 &&
                  block_tiles::keys_step % depth == 0);
    static constexpr index_t rows_limit = ceil_div(block_tiles::rows_most, panel) * panel;
    static constexpr index_t mean_keys = 256;

public:
    /// Rows of a block come in panels; the last may be partly filled.
    static constexpr index_t panel_rows = panel;
    /// Queries and outputs of 768 rows take 512 KiB at most.
    static constexpr block_tiles default_tiles{288, 768};

    /// More rows share the coding of keys and values; queries and outputs have to fit the second
    /// cache.
    [[nodiscard]] static constexpr index_t rows_most(index_t dim, index_t value_dim,
                                                     block_tiles tiles = default_tiles) noexcept {
        index_t const fitting = tiles.rows * 131072 / default_tiles.rows /
                                (steps(dim) + columns(value_dim) + 4) / panel;
        return std::max<index_t>(1, std::min(tiles.rows / panel, fitting)) * panel;
    }

    /// Scratch of one thread.
    [[nodiscard]] static constexpr index_t floats(index_t dim, index_t value_dim,
                                                  block_tiles tiles = default_tiles) noexcept {
        return rows_most(dim, value_dim, tiles) * (steps(dim) + columns(value_dim) + 4) +
               tiles.keys * (steps(dim) + 5) + line + tiles.keys / depth * pitch(value_dim) +
               3 * pitch(value_dim) + max_head_dim + tiles.keys * panel / 2 + 2 * panel;
    }

    /// `memory` [floats(dim, value_dim, tiles)], aligned to a cache line for speed.
    /// pre: tiles.is_valid()
    int8_block(index_t dim, index_t value_dim, std::span<float> memory,
               block_tiles tiles = default_tiles) noexcept
        : dim_(dim), value_dim_(value_dim), tile_keys_(tiles.keys),
          rows_most_(rows_most(dim, value_dim, tiles)) {
        SOFATTN_ASSERT(tiles.is_valid());
        SOFATTN_ASSERT(dim <= max_head_dim && value_dim <= max_head_dim);
        SOFATTN_ASSERT(std::ssize(memory) >= floats(dim, value_dim, tiles));
        float* next = memory.data();
        auto const take = [&]<class T>(T*& start, index_t count) {
            start = reinterpret_cast<T*>(next);
            next += count * static_cast<index_t>(sizeof(T)) / static_cast<index_t>(sizeof(float));
        };
        index_t const rows = rows_most_;
        take(logits_, tile_keys_ * panel);
        take(queries_, rows * steps(dim));
        take(keys_, tile_keys_ * steps(dim) + line);
        take(values_, tile_keys_ / depth * pitch(value_dim));
        take(output_, rows * columns(value_dim));
        take(value_steps_, pitch(value_dim));
        take(value_sums_, pitch(value_dim));
        take(starts_, pitch(value_dim));
        std::fill_n(starts_, pitch(value_dim), 0);
        take(key_centre_, max_head_dim);
        take(old_, panel);
        take(new_, panel);
        take(key_steps_, tile_keys_);
        take(key_starts_, tile_keys_);
        take(key_scales_, 2 * tile_keys_);
        take(value_most_, tile_keys_);
        take(value_offsets_, 2 * tile_keys_);
        take(max_, rows);
        take(unit_, rows);
        take(from_, rows);
        take(to_, rows);
    }

    template <storage_float K, storage_float V, std::invocable<index_t> Row,
              std::invocable<index_t> Visible, std::invocable<index_t> Output>
    void operator()(index_t rows, double scale, Row row, Visible visible, key_view<K const> keys,
                    value_view<V const> values, Output output) noexcept {
        SOFATTN_ASSERT(rows > 0 && rows <= rows_most_);
        index_t const panels = ceil_div(rows, panel);
        index_t const lanes = panels * panel;
        pack_queries(rows, lanes, row, scale);
        // Lanes without a row see what the last one sees.
        for (index_t i = 0; i < lanes; ++i) {
            sees_[static_cast<std::size_t>(i)] = visible(std::min(i, rows - 1));
        }
        std::fill_n(output_, lanes * columns(value_dim_), 0.0f);
        std::fill_n(max_, lanes, lowest);
        find_centre(keys);
        // Tiles hold the same keys for all rows, whatever their block sees.
        index_t const all = keys.template extent<axis::key>();
        index_t const end = sees_[static_cast<std::size_t>(rows - 1)].to;
        for (index_t first = sees_[0].from / tile_keys_ * tile_keys_; first < end;
             first += tile_keys_) {
            index_t const count = std::min(tile_keys_, all - first);
            for (index_t i = 0; i < lanes; ++i) {
                key_range const sees = sees_[static_cast<std::size_t>(i)];
                from_[i] =
                    static_cast<std::int32_t>(std::clamp<index_t>(sees.from - first, 0, count));
                to_[i] = static_cast<std::int32_t>(std::clamp<index_t>(sees.to - first, 0, count));
            }
            code_keys(keys.template range<axis::key>(first, count));
            code_values(values.template range<axis::key>(first, count));
            for (index_t p = 0; p < panels; ++p) {
                attend(p);
            }
        }
        for (index_t p = 0; p < panels; ++p) {
            write_rows(p, std::min(panel, rows - p * panel), output);
        }
    }

private:
    // In octaves. No logit is as far from 0.
    static constexpr float lowest = -4e30f;
    static constexpr index_t line = 16; ///< floats in a cache line

    /// Groups of codes that one lane multiplies at once.
    [[nodiscard]] static constexpr index_t steps(index_t dims) noexcept {
        return ceil_div(dims, depth);
    }
    /// Columns of values, and two that sum weights.
    [[nodiscard]] static constexpr index_t columns(index_t value_dim) noexcept {
        return value_dim + 2;
    }
    /// From a group of keys' values to the next: whole cache lines, an
    /// odd number of them lest all groups share a few sets of the first cache.
    [[nodiscard]] static constexpr index_t pitch(index_t value_dim) noexcept {
        return (ceil_div<index_t>(columns(value_dim), line) | 1) * line;
    }

    template <storage_float K>
    void find_centre(key_view<K const> keys) noexcept {
        index_t const all = keys.template extent<axis::key>();
        index_t const count = std::min(all, mean_keys);
        std::fill_n(key_centre_, exec::whole_vectors(dim_), 0.0f);
        detail::row_buffer buffer;
        auto const add = [&](auto const* row) {
            for (index_t d = 0; d < dim_; d += exec::vector_width) {
                exec::store(key_centre_ + d, exec::load(key_centre_ + d) + exec::load(row + d));
            }
        };
        for (index_t i = 0; i < count; ++i) {
            index_t const k = i * all / count;
            if (detail::readable<axis::dim>(keys)) {
                add(&keys(k, 0));
            } else {
                add(detail::floats_of<axis::dim>(keys, k, buffer));
            }
        }
        for (index_t d = 0; d < dim_; ++d) {
            key_centre_[d] /= static_cast<float>(count);
        }
    }

    template <class Row>
    void pack_queries(index_t rows, index_t lanes, Row row, double scale) noexcept {
        std::fill_n(queries_, lanes * steps(dim_), all_codes(exec::panel_byte(0)));
        std::fill_n(unit_, lanes, 0.0f);
        // Steps of a weight's exponent per logit, once keys' steps are known.
        auto const before = static_cast<float>(std::ldexp(
            scale * std::numbers::log2e, exec::logit_shift(dim_) + exec::weight_step_bits));
        static constexpr detail::row_buffer nothing{};
        detail::row_buffer buffer;
        std::array<std::int8_t, max_head_dim> codes{};
        for (index_t i = 0; i < rows; ++i) {
            auto const query = row(i);
            for (index_t d = 0; d < dim_; ++d) {
                buffer[static_cast<std::size_t>(d)] = to_float(query(d));
            }
            std::fill(buffer.begin() + dim_, buffer.begin() + exec::whole_vectors(dim_), 0.0f);
            float const most = exec::magnitude(buffer.data(), nothing.data(), dim_);
            exec::row_codes(buffer.data(), nothing.data(), dim_, exec::codes_per_unit(most),
                            codes.data());
            unit_[i] = most / exec::code_most * before;
            std::int32_t* const lane = queries_ + i / panel * panel * steps(dim_) + i % panel;
            for (index_t s = 0; s < steps(dim_); ++s) {
                std::int32_t four = 0;
                std::memcpy(&four, codes.data() + s * depth, sizeof four);
                // A bias of 128 turns the sign.
                lane[s * panel] = exec::dot_bias == 0 ? four : four ^ all_codes(0x80);
            }
        }
    }

    [[nodiscard]] static constexpr std::int32_t all_codes(std::uint8_t byte) noexcept {
        return std::bit_cast<std::int32_t>(0x01010101u * byte);
    }

    template <storage_float K>
    void code_keys(key_view<K const> tile) noexcept {
        index_t const count = tile.template extent<axis::key>();
        detail::row_buffer buffer;
        float largest = 0;
        auto const code = [&](index_t k, auto const* row) {
            float const most = exec::magnitude(row, key_centre_, dim_);
            // The end of a row may reach into the next one's place.
            key_starts_[k] = exec::dot_start(
                exec::row_codes(row, key_centre_, dim_, exec::codes_per_unit(most),
                                reinterpret_cast<std::int8_t*>(keys_ + k * steps(dim_))));
            key_steps_[k] = most;
            largest = std::max(largest, most);
        };
        for (index_t k = 0; k < count; ++k) {
            if (detail::readable<axis::dim>(tile)) {
                code(k, &tile(k, 0));
            } else {
                code(k, detail::floats_of<axis::dim>(tile, k, buffer));
            }
        }
        float const part = largest > 0x1p-100f ? 32768.0f / largest : 0.0f;
        for (index_t k = 0; k < count; ++k) {
            key_scales_[k] =
                static_cast<std::int16_t>(std::min(key_steps_[k] * part + 0.5f, 32767.0f));
        }
        key_step_ = largest / exec::code_most;
    }

    template <storage_float V>
    void code_values(value_view<V const> tile) noexcept {
        index_t const count = tile.template extent<axis::key>();
        index_t const wide = pitch(value_dim_);
        index_t const whole = ceil_div(count, depth) * depth;
        static constexpr detail::row_buffer nothing{};
        float largest = 0;
        detail::for_each_four(tile, [&](index_t k, auto const& rows) {
            for (auto const* const row : rows) {
                float const most = exec::magnitude(row, nothing.data(), value_dim_);
                value_most_[k++] = most;
                largest = std::max(largest, most);
            }
        });
        // A key's step is the largest's, some steps of weights lower.
        std::int32_t lowest_step = 0;
        for (index_t k = 0; k < whole; ++k) {
            std::int32_t const lower = detail::steps_below(value_most_[k], largest);
            lowest_step = std::max(lowest_step, lower);
            value_offsets_[k] = static_cast<std::uint16_t>(lower);
            value_most_[k] = exec::codes_per_unit(largest) * detail::power_of_steps(lower);
        }
        float const share = share_codes / detail::power_of_steps(lowest_step);
        std::fill_n(value_sums_, wide, 0);
        detail::for_each_four(tile, [&](index_t k, auto const& rows) {
            std::int32_t* const to = values_ + k / depth * wide;
            exec::four_codes<exec::weight_offset != 0>(rows, value_most_ + k, value_dim_, to,
                                                       value_sums_);
            // Products with these sum the weights that keys would have without their steps.
            std::uint32_t high = 0;
            std::uint32_t low = 0;
            for (index_t i = depth; i-- > 0;) {
                float const rounded = detail::power_of_steps(value_offsets_[k + i]) * share + 0.5f;
                auto const code = static_cast<std::int32_t>(rounded);
                std::int32_t const upper = (code + 64) / 128;
                high = high << 8 | static_cast<std::uint32_t>(upper);
                low = low << 8 | static_cast<std::uint8_t>(code - 128 * upper);
                if constexpr (exec::weight_offset != 0) {
                    value_sums_[value_dim_] += upper;
                    value_sums_[value_dim_ + 1] += code - 128 * upper;
                }
            }
            to[value_dim_] = static_cast<std::int32_t>(high);
            to[value_dim_ + 1] = static_cast<std::int32_t>(low);
        });
        value_groups_ = whole / depth;
        std::fill_n(value_steps_, value_dim_, largest / exec::code_most);
        value_steps_[value_dim_] = 128.0f / share;
        value_steps_[value_dim_ + 1] = 1.0f / share;
    }

    /// Of 1/16256 and more, in two codes.
    static constexpr float share_codes = 127.0f * 128.0f;

    /// What panel p sees of the tile.
    void attend(index_t p) noexcept {
        index_t const lane = p * panel;
        index_t const begin = from_[lane] / depth * depth;
        index_t const end = to_[lane + panel - 1];
        if (begin >= end) {
            return;
        }
        index_t const count = ceil_div(end - begin, depth);
        bool const all_see_all =
            from_[lane + panel - 1] <= begin && to_[lane] >= begin + count * depth;

        exec::distance_rows rows;
        std::array<std::int16_t, static_cast<std::size_t>(panel)> of_all;
        rows.top.fill(exec::masked_logit);
        of_all.fill(exec::masked_logit);
        std::int16_t* const top = all_see_all ? rows.top.data() : of_all.data();
        auto const* const queries =
            reinterpret_cast<std::uint8_t const*>(queries_ + lane * steps(dim_));
        for (index_t k = begin; k < end; k += exec::tile_rows) {
            exec::int8_logits(std::min<index_t>(exec::tile_rows, end - k),
                              {keys_ + k * steps(dim_), steps(dim_), key_starts_ + k, queries,
                               nullptr, 0, steps(dim_)},
                              {key_scales_ + k, logits_ + k * panel, top, exec::logit_shift(dim_)});
        }
        std::int16_t* const logits = logits_ + begin * panel;
        if (all_see_all) {
            measure(lane, rows);
            exec::int8_steps<false>(logits, count * depth, value_offsets_ + begin, rows);
        } else {
            alignas(64) exec::row_words from;
            alignas(64) exec::row_words to;
            exec::rows_to_words(from_ + lane, from.data());
            exec::rows_to_words(to_ + lane, to.data());
            exec::int8_mask(begin, begin + count * depth, from, to, logits_, rows);
            measure(lane, rows);
            exec::int8_steps<true>(logits, count * depth, value_offsets_ + begin, rows);
        }
        rescale(lane, rows);
        auto* const weights = reinterpret_cast<std::uint8_t*>(logits);
        exec::int8_weights(logits, count, rows.nearest, weights);
        add_values(lane, begin / depth, count, weights);
    }

    using row_numbers = std::array<std::int32_t, static_cast<std::size_t>(panel)>;
    static constexpr float octaves_per_step = 1.0f / (1 << exec::weight_step_bits);

    /// How the panel's distances become steps; new_: the largest logits, in octaves.
    void measure(index_t lane, exec::distance_rows& rows) noexcept {
        row_numbers top;
        row_numbers most;
        row_numbers shift;
        row_numbers factor;
        exec::words_to_rows(rows.top.data(), top.data());
        for (index_t i = 0; i < panel; ++i) {
            auto const row = static_cast<std::size_t>(i);
            float const unit = unit_[lane + i] * key_step_;
            exec::weight_unit const weight = exec::weight_unit::of(unit);
            most[row] = weight.most;
            shift[row] = weight.shift;
            factor[row] = weight.factor;
            new_[i] = top[row] == exec::masked_logit
                          ? lowest
                          : static_cast<float>(top[row]) * (unit * octaves_per_step);
        }
        exec::rows_to_words(most.data(), rows.most.data());
        exec::rows_to_words(shift.data(), rows.shift.data());
        exec::rows_to_words(factor.data(), rows.factor.data());
    }

    /// What outputs so far and the tile's are multiplied by, relative to the largest logit yet.
    void rescale(index_t lane, exec::distance_rows const& rows) noexcept {
        row_numbers nearest;
        exec::words_to_rows(reinterpret_cast<std::int16_t const*>(rows.nearest.data()),
                            nearest.data());
        for (index_t i = 0; i < panel; i += exec::vector_width) {
            exec::vector_float const before = exec::load(max_ + lane + i);
            exec::vector_float const here = exec::load(new_ + i);
            exec::vector_float const max = exec::larger(before, here);
            exec::vector_float const lower = exec::to_float(exec::load(nearest.data() + i)) *
                                             exec::vector_float(octaves_per_step);
            exec::store(old_ + i, exec::exp2_of_negative(before - max));
            exec::store(new_ + i, exec::exp2_of_negative((here - max) - lower));
            exec::store(max_ + lane + i, max);
        }
    }

    void add_values(index_t lane, index_t first, index_t count,
                    std::uint8_t const* weights) noexcept {
        index_t const wide = pitch(value_dim_);
        std::int32_t const* const codes = values_ + first * wide;
        if constexpr (exec::weight_offset != 0) {
            start_sums(codes, count);
        }
        float* const output = output_ + lane * columns(value_dim_);
        for (index_t d = 0; d < columns(value_dim_); d += exec::tile_rows) {
            exec::int8_values(std::min<index_t>(exec::tile_rows, columns(value_dim_) - d),
                              {codes + d, 1, starts_ + d, weights, nullptr, 0, count}, wide,
                              {value_steps_ + d, old_, new_, output + d * panel});
        }
    }

    /// Where weights lack an offset, sums start at it times the sum of the codes that meet them.
    void start_sums(std::int32_t const* codes, index_t count) noexcept {
        index_t const wide = pitch(value_dim_);
        if (codes == values_ && count == value_groups_) {
            for (index_t d = 0; d < columns(value_dim_); ++d) {
                starts_[d] = exec::weight_offset * value_sums_[d];
            }
            return;
        }
        std::fill_n(starts_, columns(value_dim_), 0);
        for (index_t s = 0; s < count; ++s) {
            for (index_t d = 0; d < columns(value_dim_); ++d) {
                auto const four = std::bit_cast<std::array<std::int8_t, 4>>(codes[s * wide + d]);
                starts_[d] += exec::weight_offset * (four[0] + four[1] + four[2] + four[3]);
            }
        }
    }

    template <class Output>
    void write_rows(index_t p, index_t rows, Output output) noexcept {
        float const* const from = output_ + p * panel * columns(value_dim_);
        float const* const sum = from + value_dim_ * panel;
        for (index_t i = 0; i < rows; ++i) {
            std::array<float, static_cast<std::size_t>(max_head_dim)> finished;
            float const total = sum[i] + sum[panel + i];
            if (total > 0) {
                float const inverse = 1.0f / total;
                for (index_t d = 0; d < value_dim_; ++d) {
                    finished[static_cast<std::size_t>(d)] = from[d * panel + i] * inverse;
                }
            } else {
                std::fill_n(finished.data(), value_dim_, 0.0f);
            }
            exec::store_row(output(p * panel + i), finished.data());
        }
    }

    index_t dim_;
    index_t value_dim_;
    index_t tile_keys_;
    index_t rows_most_;
    index_t value_groups_ = 0;     ///< of four keys, in the tile
    float key_step_ = 0;           ///< real units of a key's code, the largest of the tile
    std::int16_t* logits_;         ///< [key, row] of a panel, then its weights
    std::int32_t* queries_;        ///< [panel, step, row], four codes each
    std::int32_t* keys_;           ///< [key, step], four codes each
    std::int32_t* values_;         ///< [key / 4, pitch], four codes each
    float* output_;                ///< [panel, column, row], the last column sums weights
    float* value_steps_;           ///< [column]
    std::int32_t* value_sums_;     ///< [column]
    std::int32_t* starts_;         ///< [column]
    float* key_centre_;            ///< [dim]
    float* old_;                   ///< [row] of a panel, what becomes of outputs so far
    float* new_;                   ///< [row] of a panel
    float* key_steps_;             ///< [key], magnitudes
    std::int32_t* key_starts_;     ///< [key]
    std::int16_t* key_scales_;     ///< [key], of the tile's largest step
    float* value_most_;            ///< [key], magnitudes, then inverse steps
    std::uint16_t* value_offsets_; ///< [key], of the tile's largest step
    float* max_;                   ///< [row], in octaves
    float* unit_;                  ///< [row]
    std::int32_t* from_;           ///< [row], first key of the tile that it sees
    std::int32_t* to_;             ///< [row], after the last
    std::array<key_range, static_cast<std::size_t>(rows_limit)> sees_; ///< [row]
};

} // namespace sofattn::sufa
