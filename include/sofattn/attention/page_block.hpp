// SPDX-License-Identifier: MIT
// Attention of a block of queries to the pages that their teams look at, all keys of them.
#pragma once

#include <sofattn/attention/page_choice.hpp>
#include <sofattn/attention/page_index.hpp>
#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/attention/prefill_teams.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/page_tile.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/softmax_weight.hpp>
#include <sofattn/sufa/logit_map.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>

namespace sofattn {

/// FlashAttention-2 over chosen pages, for some teams of one KV head: tile of keys by tile, so that its pages
/// lie in the second cache while the teams pass. Pages that a team skips weigh what its sketches say, and
/// stand for the mean values of their segments.
template <class Products>
class page_block {
    using pages_type = sufa::key_value_pages<Products>;
    using element = typename pages_type::element;
    using factor = typename pages_type::factor;

public:
    static constexpr index_t teams_most = page_choice::teams_most;

    /// Scratch of one thread, bytes.
    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t value_dim) noexcept {
        index_t const floats =
            rows_most * (2 * padded(dim) + padded(value_dim)) + teams_most * padded(value_dim);
        return static_cast<std::size_t>(floats) * sizeof(float) + page_choice::bytes(keys, dim);
    }

    /// `memory` [bytes(keys, dim, value_dim)], aligned to a cache line.
    page_block(index_t keys, index_t dim, index_t value_dim, std::byte* memory) noexcept
        : dim_(dim), value_dim_(value_dim), key_width_(padded(dim)), width_(padded(value_dim)),
          choice_(keys, dim, memory) {
        auto* next = reinterpret_cast<float*>(memory + page_choice::bytes(keys, dim));
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        queries_ = take(rows_most * key_width_);
        factors_ = reinterpret_cast<factor*>(take(rows_most * key_width_));
        stand_ins_ = take(teams_most * width_);
        output_ = take(rows_most * width_);
    }

    /// Of the teams of `rows`, a prefill_rows: on_looked(first row of a team, its rows, first key of a tile, a
    /// bit for each of its pages).
    template <class Rows, class OnLooked>
    void operator()(Rows const& rows, page_index<Products> const& index,
                    OnLooked const& on_looked) noexcept {
        index_t const teams = rows.teams();
        begin(rows);
        auto const as_asked = [&](index_t i) {
            return page_asker::row{rows.rule(i, 1.0), row(i).sees.from};
        };
        choice_(
            teams,
            [&](index_t t) {
                team_state const& of = teams_[static_cast<std::size_t>(t)];
                return page_asker::of(as_asked(of.first), as_asked(of.end() - 1), of.loss, of.first,
                                      of.rows);
            },
            [&](index_t i) { return queries_ + i * key_width_; }, index.sketches(),
            [&](index_t t, std::span<float const> skipped) {
                skipped_[static_cast<std::size_t>(t)] =
                    index.value_sums().weighted_mean(skipped, stand_ins_ + t * width_, width_);
            });
        for (index_t tile = 0; tile < choice_.pages().tiles(); ++tile) {
            for (index_t t = 0; t < teams; ++t) {
                std::uint32_t const looked = choice_.pages().looked(t, tile);
                if (looked != 0) {
                    team_state const& of = teams_[static_cast<std::size_t>(t)];
                    on_looked(of.first, of.rows, tile * tile_keys, looked);
                    attend(of, index.pages(), tile, looked);
                }
            }
        }
        for (index_t t = 0; t < teams; ++t) {
            team_state const& of = teams_[static_cast<std::size_t>(t)];
            for (index_t i = of.first; i < of.end(); ++i) {
                rows.put_dropped(
                    i, finish(i, t, index.sketches().centre(), rows.sink(i), rows.output(i)));
            }
        }
    }

private:
    static constexpr index_t rows_most = teams_most * team_rows;
    static constexpr index_t page = exec::page_keys;
    static constexpr index_t tile_keys = prefill_pages::tile_keys;
    static constexpr index_t tile_pages = prefill_pages::tile_pages;
    static constexpr index_t each = pages_type::each;
    /// Logits of a row; a cache line more, so that rows do not share their sets.
    static constexpr index_t logit_row = tile_keys + 16;
    static constexpr auto rows_of_team = static_cast<std::size_t>(team_rows);

    // No logit is as far from 0, and a masked one weighs nothing whatever the maximum.
    static constexpr float lowest = -4e30f;
    static constexpr float masked = -8e30f;

    struct team_state {
        index_t first = 0; ///< row
        index_t rows = 0;
        double loss = 0;
        key_range all_see{}; ///< keys that every row sees

        [[nodiscard]] index_t end() const noexcept { return first + rows; }
    };
    struct row_state {
        float max = lowest; ///< of the products
        float sum = 0;      ///< of weights
        key_range sees{};
    };
    /// Of the pages that a team looks at in a tile.
    struct page_list {
        std::array<factor const*, static_cast<std::size_t>(tile_pages)> keys;
        std::array<factor const*, static_cast<std::size_t>(tile_pages)> values;
        std::array<index_t, static_cast<std::size_t>(tile_pages)> first; ///< key
        index_t count = 0;
    };

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }
    [[nodiscard]] row_state& row(index_t i) noexcept { return rows_[static_cast<std::size_t>(i)]; }

    template <class Rows>
    void begin(Rows const& of) noexcept {
        index_t const teams = of.teams();
        SOFATTN_ASSERT(teams > 0 && teams <= teams_most);
        // Logits in octaves: the exponential is a power of two. bf16 queries get the power of two of
        // the factor only, which rounds nothing.
        double const octaves = of.scale() * std::numbers::log2e;
        auto before = static_cast<float>(octaves);
        unit_ = 1.0f;
        if constexpr (each == 2) {
            int exponent = 0;
            unit_ = static_cast<float>(std::frexp(octaves, &exponent));
            before = static_cast<float>(std::ldexp(1.0, exponent));
        }
        index_t count = 0;
        for (index_t t = 0; t < teams; ++t) {
            prefill_team const team = of.team(t);
            SOFATTN_ASSERT(team.rows > 0 && team.rows <= team_rows);
            index_t const first = count;
            for (index_t const end = count + team.rows; count < end; ++count) {
                row(count) = {lowest, 0.0f, of.sees(count)};
                put_query(count, of.query(count), before);
            }
            teams_[static_cast<std::size_t>(t)] = {
                first, team.rows, team.loss, {row(count - 1).sees.from, row(first).sees.to}};
        }
        std::fill_n(output_, count * width_, 0.0f);
    }
    template <class Query>
    void put_query(index_t i, Query const& query, float before) noexcept {
        float* const into = queries_ + i * key_width_;
        for_each_float(query.data(), dim_, query.template stride<axis::dim>(),
                       [=](index_t d, float q) { into[d] = q * before; });
        std::fill(into + dim_, into + key_width_, 0.0f);
        factor* const factors = factors_ + i * key_width_;
        if constexpr (each == 1) {
            std::copy_n(into, key_width_, factors);
        } else {
            exec::vector_float const unit(unit_);
            for (index_t d = 0; d < key_width_; d += exec::vector_width) {
                exec::vector_float const q = exec::load(into + d);
                // What is behind a register's numbers is written next, or not read.
                exec::store_narrowed(reinterpret_cast<bfloat16*>(factors) + d, q,
                                     exec::vector_float(0.0f));
                exec::store(into + d, q * unit);
            }
        }
    }

    [[nodiscard]] static page_list list(pages_type const& pages, index_t tile,
                                        std::uint32_t looked) noexcept {
        page_list list;
        for (; looked != 0; looked &= looked - 1) {
            index_t const p = tile * tile_pages + std::countr_zero(looked);
            auto const at = static_cast<std::size_t>(list.count++);
            list.keys[at] = pages.keys(p);
            list.values[at] = pages.values(p);
            list.first[at] = p * page;
        }
        return list;
    }

    void attend(team_state const& of, pages_type const& pages, index_t tile,
                std::uint32_t looked) noexcept {
        page_list const at = list(pages, tile, looked);
        tops_.fill(lowest);
        index_t const registers = at.count * page / exec::vector_width;
        for (index_t v = 0; v < registers; v += exec::tile_vectors) {
            multiply(of, pages.steps(), at, v,
                     std::min<index_t>(exec::tile_vectors, registers - v));
        }
        raise_maxima(of);
        for (index_t r = 0; r < of.rows; ++r) {
            weigh(row(of.first + r), r, at.count);
        }
        exec::page_sums<factor>(of.rows, {at.values.data(), at.count, pages_type::value_steps,
                                          reinterpret_cast<factor const*>(logits_.data()),
                                          logit_row, scale_.data(), output_ + of.first * width_,
                                          width_, pages.registers()});
    }

    /// Products with the keys of registers [v, v + count) of the list.
    void multiply(team_state const& of, index_t steps, page_list const& at, index_t v,
                  index_t count) noexcept {
        constexpr index_t in_page = page / exec::vector_width; // registers
        std::array<factor const*, exec::tile_vectors> columns{};
        for (index_t i = 0; i < count; ++i) {
            columns[static_cast<std::size_t>(i)] =
                at.keys[static_cast<std::size_t>((v + i) / in_page)] +
                (v + i) % in_page * exec::vector_width;
        }
        index_t const last = (v + count - 1) / in_page;
        bool const is_seen = at.first[static_cast<std::size_t>(v / in_page)] >= of.all_see.from &&
                             at.first[static_cast<std::size_t>(last)] + page <= of.all_see.to;
        float* const logits = logits_.data() + v * exec::vector_width;
        exec::page_products<factor>(of.rows, count,
                                    {factors_ + of.first * key_width_, key_width_, columns, logits,
                                     logit_row, is_seen ? tops_.data() : unused_.data(), steps});
        if (is_seen) {
            return;
        }
        for (index_t r = 0; r < of.rows; ++r) {
            key_range const sees = row(of.first + r).sees;
            exec::vector_float top = exec::load(tops_.data() + r * exec::vector_width);
            for (index_t i = 0; i < count; ++i) {
                index_t const first = at.first[static_cast<std::size_t>((v + i) / in_page)] +
                                      (v + i) % in_page * exec::vector_width;
                float* const lane = logits + r * logit_row + i * exec::vector_width;
                std::fill_n(lane, std::clamp<index_t>(sees.from - first, 0, exec::vector_width),
                            masked);
                std::fill(lane + std::clamp<index_t>(sees.to - first, 0, exec::vector_width),
                          lane + exec::vector_width, masked);
                top = exec::larger(top, exec::load(lane));
            }
            exec::store(tops_.data() + r * exec::vector_width, top);
        }
    }

    /// What was summed beside the old maxima is scaled.
    void raise_maxima(team_state const& of) noexcept {
        for (index_t r = 0; r < of.rows; ++r) {
            row_state& state = row(of.first + r);
            float const top = std::max(
                state.max, exec::largest(exec::load(tops_.data() + r * exec::vector_width)));
            scale_[static_cast<std::size_t>(r)] = (state.max - top) * unit_;
            state.max = top;
        }
        for (index_t r = 0; r < of.rows; r += exec::vector_width) {
            exec::store(scale_.data() + r, exec::exp2_of_negative(exec::load(scale_.data() + r)));
        }
    }

    /// Logits of row r of the team become weights, in their places, two in one where they are bf16.
    void weigh(row_state& state, index_t r, index_t pages) noexcept {
        using exec::vector_float;
        constexpr index_t width = exec::vector_width;
        float* const logits = logits_.data() + r * logit_row;
        vector_float const max(state.max);
        auto const weight_of = [&](index_t k) {
            return exec::exp2_of_negative((exec::load(logits + k) - max) * vector_float(unit_));
        };
        index_t const keys = pages * page;
        vector_float sum(0.0f);
        if constexpr (each == 1) {
            for (index_t k = 0; k < keys; k += width) {
                vector_float const weight = weight_of(k);
                exec::store(logits + k, weight);
                sum = sum + weight;
            }
        } else {
            auto* const into = reinterpret_cast<bfloat16*>(logits);
            for (index_t k = 0; k < keys; k += 2 * width) {
                // A page is one register here, so there may be an odd one.
                vector_float const first = weight_of(k);
                vector_float const second =
                    k + width < keys ? weight_of(k + width) : vector_float(0.0f);
                exec::store_narrowed(into + k, first, second);
                sum = sum + (first + second);
            }
        }
        state.sum = state.sum * scale_[static_cast<std::size_t>(r)] + exec::sum_of(sum);
    }

    /// Returns the share of what stands for skipped pages.
    float finish(index_t i, index_t t, float const* centre, float sink,
                 output_row const& out) noexcept {
        row_state const& state = row(i);
        float sum = state.sum;
        float const max = state.max * unit_; // octaves
        float stands_in = 0.0f;
        if (sum > 0.0f && skipped_[static_cast<std::size_t>(t)] > 0.0f) {
            float const* const query = queries_ + i * key_width_;
            exec::vector_float products(0.0f);
            for (index_t d = 0; d < key_width_; d += exec::vector_width) {
                products =
                    exec::multiply_add(exec::load(query + d), exec::load(centre + d), products);
            }
            float const middle = exec::sum_of(products);
            constexpr auto octave = static_cast<float>(1 << sads::weight_scale::position_bits);
            team_state const& of = teams_[static_cast<std::size_t>(t)];
            float const best_page =
                static_cast<float>(choice_.pages().top(t, i - of.first)) / octave;
            float const skipped = skipped_[static_cast<std::size_t>(t)];
            stands_in = weight_of_skipped(skipped, best_page - (max - middle), of.loss, sum);
            sum += stands_in * skipped;
        }
        float const inverse = sufa::row_end::of(max, sum, sink).inverse;
        // Nothing is seen: 0, and never -0.
        float* const result = output_ + i * width_;
        float const* const other = stand_ins_ + t * width_;
        for (index_t d = 0; d < value_dim_; ++d) {
            result[d] = (result[d] + stands_in * other[d]) * inverse;
        }
        exec::store_row(out, result);
        return stands_in * skipped_[static_cast<std::size_t>(t)] * inverse;
    }

    index_t dim_;
    index_t value_dim_;
    index_t key_width_;
    index_t width_;
    float unit_ = 1; ///< octaves of a unit of the products
    page_choice choice_;
    float* queries_;   ///< [row, key_width], octaves per unit of the key
    factor* factors_;  ///< [row, key_width]
    float* stand_ins_; ///< [team, width], for skipped pages
    float* output_;    ///< [row, width]
    alignas(64) std::array<float, rows_of_team* static_cast<std::size_t>(logit_row)> logits_;
    alignas(64) std::array<float, rows_of_team* static_cast<std::size_t>(exec::vector_width)> tops_;
    alignas(
        64) std::array<float, rows_of_team* static_cast<std::size_t>(exec::vector_width)> unused_{};
    std::array<float, rows_of_team + static_cast<std::size_t>(exec::vector_width)>
        scale_{}; ///< [row]
    std::array<row_state, static_cast<std::size_t>(rows_most)> rows_;
    std::array<team_state, static_cast<std::size_t>(teams_most)> teams_;
    /// Weight of what the team skips, beside its best page's.
    std::array<float, static_cast<std::size_t>(teams_most)> skipped_;
};

} // namespace sofattn
