// SPDX-License-Identifier: MIT
// The rows of a few heads at one query, and the keys of a list.
#pragma once

#include <sofattn/attention/dropped_mass.hpp>
#include <sofattn/attention/logit_terms.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/sufa/decode_block.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace sofattn::detail {

/// Scratch of one thread for lists of so many keys at most, and what it is for.
class listed_rows {
public:
    static constexpr index_t chunk = 512; ///< keys whose (m, l, o) is one state
    static_assert(dropped_sample::most <= chunk, "a sample fits wherever a list does");

    [[nodiscard]] static constexpr index_t bytes(index_t rows, index_t keys_most, index_t dim,
                                                 index_t value_dim) noexcept {
        return states_bytes(rows, keys_most, value_dim) +
               in_lines(sufa::decode_block::floats(rows, dim, value_dim));
    }

    /// `scratch` [bytes(...)], aligned to a cache line
    listed_rows(std::byte* scratch, index_t rows, index_t keys_most, index_t dim,
                index_t value_dim) noexcept
        : rows_(rows), chunks_(chunks(keys_most)), dim_(dim), value_dim_(value_dim),
          states_(reinterpret_cast<float*>(scratch)),
          block_(reinterpret_cast<float*>(scratch + states_bytes(rows, keys_most, value_dim))) {}

    /// Heads [head, head + rows) of KV head `kv` at `query` attend to `kept`: rows of given.keys, in any
    /// order. No keys: zeros.
    template <class Given>
    void operator()(Given const& given, std::span<key_id const> kept, index_t kv, index_t head,
                    index_t query, double scale, logit_terms const& terms,
                    output_array const& output, softmax_sums const& sums) const noexcept {
        using sufa::decode_block;
        auto const keys = given.keys.template slice<axis::kv_head>(kv);
        auto const values = given.values.template slice<axis::kv_head>(kv);
        decode_block block(rows_, dim_, value_dim_,
                           std::span(block_, static_cast<std::size_t>(
                                                 decode_block::floats(rows_, dim_, value_dim_))));
        index_t const used = ceil_div(std::ssize(kept), chunk);
        auto const state = [&](index_t row, index_t c) {
            return states_ + (row * chunks_ + c) * decode_block::state_floats(value_dim_);
        };
        decode_block::ask_for_first(kept, keys, values);
        for (index_t c = 0; c < used; ++c) {
            index_t const first = c * chunk;
            block(
                rows_, scale,
                [&](index_t i) {
                    return given.queries.template slice<axis::head>(head + i)
                        .template slice<axis::query>(query);
                },
                kept.subspan(static_cast<std::size_t>(first)),
                std::min(chunk, std::ssize(kept) - first), keys, values,
                [&](index_t i) { return state(i, c); }, terms.map());
        }
        for (index_t i = 0; i < rows_; ++i) {
            float* const of_row = state(i, 0);
            decode_block::merged(of_row, used, value_dim_, terms.of(head + i, 0).sink);
            if (used == 0) {
                std::fill_n(of_row, value_dim_, 0.0f);
            }
            exec::store_row(output.row(head + i, query), of_row);
            sums.write(head + i, query, decode_block::max_of(of_row, value_dim_),
                       decode_block::sum_of(of_row, value_dim_));
        }
    }

    /// As above, and the share of the keys that are left in `sample` into `dropped`.
    template <class Given>
    void operator()(Given const& given, std::span<key_id const> kept, dropped_sample& sample,
                    index_t kv, index_t head, index_t query, double scale, logit_terms const& terms,
                    output_array const& output, softmax_sums const& sums,
                    dropped_mass const& dropped) const noexcept {
        // First the drawn keys, whose output is overwritten then.
        std::span<key_id> const drawn = sample.keys();
        if constexpr (requires { given.table; }) {
            std::ranges::transform(drawn, drawn.begin(),
                                   [&](key_id key) { return given.table.row(key); });
        }
        logit_terms without_sinks = terms;
        without_sinks.sink_logits = nullptr;
        (*this)(given, drawn, kv, head, query, scale, without_sinks, output, {});
        for (index_t i = 0; i < rows_; ++i) {
            dropped(head + i, query) = octaves(i, !drawn.empty());
        }
        (*this)(given, kept, kv, head, query, scale, terms, output, sums);
        bool const any = !kept.empty() || terms.sink_logits != nullptr;
        for (index_t i = 0; i < rows_; ++i) {
            float& share = dropped(head + i, query);
            share = sample.share(octaves(i, any), share);
        }
    }

private:
    /// Of the weight that row i has met, after a call with keys or a sink; else none.
    [[nodiscard]] float octaves(index_t i, bool any) const noexcept {
        using sufa::decode_block;
        float* const state = states_ + i * chunks_ * decode_block::state_floats(value_dim_);
        return any && decode_block::sum_of(state, value_dim_) > 0.0f
                   ? decode_block::max_of(state, value_dim_) +
                         std::log2(decode_block::sum_of(state, value_dim_))
                   : -std::numeric_limits<float>::infinity();
    }
    [[nodiscard]] static constexpr index_t chunks(index_t keys_most) noexcept {
        return ceil_div(std::max<index_t>(keys_most, 1), chunk);
    }
    [[nodiscard]] static constexpr index_t in_lines(index_t floats) noexcept {
        return ceil_div(floats * 4, index_t{64}) * 64;
    }
    [[nodiscard]] static constexpr index_t states_bytes(index_t rows, index_t keys_most,
                                                        index_t value_dim) noexcept {
        return in_lines(rows * chunks(keys_most) * sufa::decode_block::state_floats(value_dim));
    }

    index_t rows_;
    index_t chunks_;
    index_t dim_;
    index_t value_dim_;
    float* states_; ///< [row, chunk]
    float* block_;
};

} // namespace sofattn::detail
