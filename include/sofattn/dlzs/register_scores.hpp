// SPDX-License-Identifier: MIT
// Score prediction (phase 1.2) on vector registers: dot products in place of shifts, the same sums.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int16_tile.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace sofattn::dlzs {

/// Rows of scores_on_registers that are predicted together: they share the loads of keys.
inline constexpr index_t rows_together = exec::tile_rows;

/// Some queries, by their numbers in register_queries: first, first + step, ...
struct query_rows {
    index_t first = 0;
    index_t step = 1;
    index_t count = 1; ///< up to rows_together
};

namespace detail {

/// Integers of more than 8 bits. A power of two times an integer is a product of integers.
template <class P>
concept wide_policy = policy<P> && P::key != operand::real && !byte_policy<P>;

/// 32 bits hold every sum of a narrow policy. Elsewhere a key is 256 * high + low, low in
/// [-128, 127], and the two parts' sums are put together in 64 bits: 128 * 32767 * max_head_dim fits
/// 32 bits with a bit to spare.
template <wide_policy Policy>
inline constexpr int key_parts = sizeof(score_type<Policy>) == sizeof(std::int32_t) ? 1 : 2;

/// What a query's stored element is multiplied as.
template <policy Policy>
[[nodiscard]] int query_factor(typename query_codes<Policy>::element stored) noexcept {
    return static_cast<int>(code_value<Policy::query, Policy::query_bits>(stored));
}

/// sums of whole tiles -> scores of the keys that were asked for. tile(t, sums, stride) computes
/// tile t for all rows.
template <index_t Width, class Score, class Tile>
void for_each_tile(key_range keys, index_t rows, Score* scores, index_t stride,
                   Tile tile) noexcept {
    std::array<Score, static_cast<std::size_t>(rows_together * Width)> buffer;
    for (index_t t = keys.from / Width; t * Width < keys.to; ++t) {
        index_t const first = t * Width;
        if (first >= keys.from && first + Width <= keys.to) {
            tile(t, scores + (first - keys.from), stride);
            continue;
        }
        tile(t, buffer.data(), Width);
        index_t const from = std::max(first, keys.from);
        index_t const to = std::min(first + Width, keys.to);
        for (index_t r = 0; r < rows; ++r) {
            std::copy_n(buffer.data() + r * Width + (from - first), to - from,
                        scores + r * stride + (from - keys.from));
        }
    }
}

} // namespace detail

/// The keys of one KV head as kernels read them.
template <policy Policy>
class register_keys;
/// Queries of the heads of a selection, all of them, in the form that goes with it. Row h * queries
/// + q is query q of head h.
template <policy Policy>
class register_queries;

// --- bytes ---------------------------------------------------------------------------------------

template <byte_policy Policy>
class register_keys<Policy> {
public:
    register_keys() noexcept = default;
    explicit register_keys(key_index<Policy> const& index) : panels_(index) {}

    [[nodiscard]] key_panels const& panels() const noexcept { return panels_; }

private:
    key_panels panels_;
};

template <byte_policy Policy>
class register_queries<Policy> {
public:
    register_queries() noexcept = default;
    register_queries(query_codes<Policy> const& codes, index_t heads, index_t queries, index_t dim)
        : steps_(dot_steps(dim)), words_(static_cast<std::size_t>(heads * queries * steps_)),
          starts_(static_cast<std::size_t>(heads * queries)) {
        for (index_t row = 0; row < heads * queries; ++row) {
            auto const from = codes.row(row / queries, row % queries);
            auto* const to = reinterpret_cast<std::int8_t*>(words_.data() + row * steps_);
            std::int32_t sum = 0;
            for (index_t d = 0; d < dim; ++d) {
                int const factor = detail::query_factor<Policy>(from(d));
                to[d] = static_cast<std::int8_t>(factor);
                sum += factor;
            }
            starts_[static_cast<std::size_t>(row)] = exec::dot_start(sum);
        }
    }

    void predict(query_rows rows, register_keys<Policy> const& keys, key_range range,
                 std::int32_t* scores, index_t stride) const noexcept {
        std::array<std::int32_t, static_cast<std::size_t>(rows_together)> starts{};
        for (index_t r = 0; r < rows.count; ++r) {
            starts[static_cast<std::size_t>(r)] =
                starts_[static_cast<std::size_t>(rows.first + r * rows.step)];
        }
        auto const& panels = keys.panels();
        detail::for_each_tile<exec::tile_width>(
            range, rows.count, scores, stride,
            [&](index_t t, std::int32_t* sums, index_t sum_stride) {
                auto const pages = panels.tile_from(t / exec::page_tiles * exec::tile_pages);
                exec::int8_tile(rows.count,
                                {words_.data() + rows.first * steps_, rows.step * steps_,
                                 starts.data(), exec::columns_of(pages, t % exec::page_tiles), sums,
                                 sum_stride, steps_});
            });
    }

private:
    index_t steps_ = 0;
    std::vector<std::int32_t> words_;  ///< [row, step], four codes each, zero beyond dim
    std::vector<std::int32_t> starts_; ///< [row]
};

// --- wider integers ------------------------------------------------------------------------------

template <detail::wide_policy Policy>
class register_keys<Policy> {
public:
    static constexpr int parts = detail::key_parts<Policy>;
    static constexpr index_t width = exec::tile_width / parts; ///< keys of a tile

    register_keys() noexcept = default;
    explicit register_keys(key_index<Policy> const& index)
        : steps_(ceil_div(index.codes().template extent<axis::dim>(), exec::pair_depth)),
          shorts_({ceil_div(index.codes().template extent<axis::key>(), width) * tile_shorts()}) {
        auto const codes = index.codes();
        auto* const to = shorts_.view().data();
        for (index_t k = 0; k < codes.template extent<axis::key>(); ++k) {
            auto* const tile = to + k / width * tile_shorts() + k % width * exec::pair_depth;
            for (index_t d = 0; d < codes.template extent<axis::dim>(); ++d) {
                auto const value = static_cast<int>(
                    detail::code_value<Policy::key, Policy::key_bits>(codes(k, d)));
                auto* const at = tile + d / exec::pair_depth * step_shorts + d % exec::pair_depth;
                if constexpr (parts == 1) {
                    at[0] = static_cast<std::int16_t>(value);
                } else {
                    int const low = ((value + 128) & 0xff) - 128;
                    at[0] = static_cast<std::int16_t>((value - low) / 256);
                    at[width * exec::pair_depth] = static_cast<std::int16_t>(low);
                }
            }
        }
    }

    [[nodiscard]] index_t steps() const noexcept { return steps_; }
    /// [step, part, width lanes, pair_depth]
    [[nodiscard]] std::int16_t const* tile(index_t t) const noexcept {
        return shorts_.cview().data() + t * tile_shorts();
    }

private:
    static constexpr index_t step_shorts = exec::tile_width * exec::pair_depth;
    [[nodiscard]] index_t tile_shorts() const noexcept { return steps_ * step_shorts; }

    index_t steps_ = 0;
    tensor<std::int16_t, axis::key> shorts_;
};

template <detail::wide_policy Policy>
class register_queries<Policy> {
public:
    using score = score_type<Policy>;

    register_queries() noexcept = default;
    register_queries(query_codes<Policy> const& codes, index_t heads, index_t queries, index_t dim)
        : steps_(ceil_div(dim, exec::pair_depth)),
          words_(static_cast<std::size_t>(heads * queries * steps_)) {
        for (index_t row = 0; row < heads * queries; ++row) {
            auto const from = codes.row(row / queries, row % queries);
            auto* const to = reinterpret_cast<char*>(words_.data() + row * steps_);
            for (index_t d = 0; d < dim; ++d) {
                auto const factor =
                    static_cast<std::int16_t>(detail::query_factor<Policy>(from(d)));
                std::memcpy(to + d * index_t{sizeof factor}, &factor, sizeof factor);
            }
        }
    }

    void predict(query_rows rows, register_keys<Policy> const& keys, key_range range, score* scores,
                 index_t stride) const noexcept {
        constexpr index_t width = register_keys<Policy>::width;
        detail::for_each_tile<width>(
            range, rows.count, scores, stride, [&](index_t t, score* into, index_t into_stride) {
                std::array<std::int32_t, static_cast<std::size_t>(rows_together * exec::tile_width)>
                    sums;
                exec::int16_tile(rows.count,
                                 {words_.data() + rows.first * steps_, rows.step * steps_,
                                  keys.tile(t), sums.data(), exec::tile_width, steps_});
                for (index_t r = 0; r < rows.count; ++r) {
                    std::int32_t const* const of_row = sums.data() + r * exec::tile_width;
                    for (index_t k = 0; k < width; ++k) {
                        if constexpr (register_keys<Policy>::parts == 1) {
                            into[r * into_stride + k] = of_row[k];
                        } else {
                            into[r * into_stride + k] = score{of_row[k]} * 256 + of_row[width + k];
                        }
                    }
                }
            });
    }

private:
    index_t steps_ = 0;
    std::vector<std::int32_t> words_; ///< [row, step], two integers each, zero beyond dim
};

// --- the oracle ----------------------------------------------------------------------------------

template <policy Policy>
    requires(Policy::key == operand::real)
class register_keys<Policy> {
public:
    static constexpr index_t width = 2 * exec::vector_width;

    register_keys() noexcept = default;
    explicit register_keys(key_index<Policy> const& index)
        : dim_(index.codes().template extent<axis::dim>()),
          reals_({ceil_div(index.codes().template extent<axis::key>(), width) * width * dim_}) {
        auto const codes = index.codes();
        auto* const to = reals_.view().data();
        for (index_t k = 0; k < codes.template extent<axis::key>(); ++k) {
            for (index_t d = 0; d < dim_; ++d) {
                to[(k / width * dim_ + d) * width + k % width] = static_cast<double>(codes(k, d));
            }
        }
    }

    /// [dim, width lanes]
    [[nodiscard]] double const* tile(index_t t) const noexcept {
        return reals_.cview().data() + t * width * dim_;
    }

private:
    index_t dim_ = 0;
    tensor<double, axis::key> reals_;
};

template <policy Policy>
    requires(Policy::key == operand::real)
class register_queries<Policy> {
public:
    register_queries() noexcept = default;
    register_queries(query_codes<Policy> const& codes, index_t heads, index_t queries, index_t dim)
        : dim_(dim), reals_(static_cast<std::size_t>(heads * queries * dim)) {
        for (index_t row = 0; row < heads * queries; ++row) {
            auto const from = codes.row(row / queries, row % queries);
            for (index_t d = 0; d < dim; ++d) {
                reals_[static_cast<std::size_t>(row * dim + d)] = static_cast<double>(from(d));
            }
        }
    }

    /// Products of floats are exact in double, so it does not matter whether they are fused with the
    /// additions, which run in the order of the channels.
    void predict(query_rows rows, register_keys<Policy> const& keys, key_range range,
                 double* scores, index_t stride) const noexcept {
        constexpr index_t width = register_keys<Policy>::width;
        detail::for_each_tile<width>(
            range, rows.count, scores, stride, [&](index_t t, double* into, index_t into_stride) {
                for (index_t r = 0; r < rows.count; ++r) {
                    double const* const query = reals_.data() + (rows.first + r * rows.step) * dim_;
                    std::array<double, static_cast<std::size_t>(width)> sums{};
                    double const* key = keys.tile(t);
                    for (index_t d = 0; d < dim_; ++d, key += width) {
                        for (std::size_t k = 0; k < sums.size(); ++k) {
                            sums[k] += query[d] * key[k];
                        }
                    }
                    std::ranges::copy(sums, into + r * into_stride);
                }
            });
    }

private:
    index_t dim_ = 0;
    std::vector<double> reals_; ///< [row, dim]
};

/// Predicts the scores of up to rows_together queries against a run of keys.
///
/// in     queries, rows  register_queries of query_codes, and which of them
///        keys, range    register_keys of a key_index, and which of them
/// out    scores         [row, key] predicted q.k in units of query_codes::product_step, rows
///                       `stride` apart
/// pre    range within the keys, stride at least its length, rows.count at most rows_together
///        (SOFATTN_ASSERT)
/// error  none
/// events none: dot products are not the circuit's shifts, so nobody may count them
/// exact  the scores of predict_scores, bit for bit, on every target
/// paper  DLZS phase 1.2, section III-A. Not in the paper: a shift by b - 1 is a product with
///        2^(b-1), which dot products of bytes take together with three others
template <policy Policy>
struct predict_rows {
    void operator()(register_queries<Policy> const& queries, query_rows rows,
                    register_keys<Policy> const& keys, key_range range, score_type<Policy>* scores,
                    index_t stride) const noexcept {
        SOFATTN_ASSERT(rows.count > 0 && rows.count <= rows_together);
        SOFATTN_ASSERT(range.from >= 0 && range.to - range.from <= stride);
        queries.predict(rows, keys, range, scores, stride);
    }
};

} // namespace sofattn::dlzs
