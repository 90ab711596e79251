// SPDX-License-Identifier: MIT
// The keys of one KV head as codes that are scanned a register of keys at a time, and that grow token
// by token: the index of decode.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/nibbles.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::dlzs {

/// Forms that fit bytes or nibbles: int8, centred_int4, lz_keys, dlzs8 and what derives from them.
template <class P>
concept packed_policy =
    policy<P> && !P::rotated && P::key != operand::real && P::key_bits <= 8 && P::query_bits <= 8;

/// Centre and steps of keys, fixed before the first is coded: a later token must not change the codes
/// of an earlier one. Taken from the keys that are there, such as a prompt's.
template <packed_policy Policy>
struct key_calibration {
    std::vector<float> centre;         ///< [dim], or empty
    std::vector<quantiser_step> steps; ///< 1, or [dim]
    index_t dim = 0;

    /// The steps that key_index has for the same keys, times `headroom` for larger ones to come.
    template <storage_float T>
    [[nodiscard]] static key_calibration of(key_view<T const> keys, float headroom = 1.0f) {
        auto const coded = quantise<Policy::key_bits>(keys, Policy::key_step, Policy::centred_keys);
        key_calibration c;
        c.centre = coded.centre;
        c.dim = keys.template extent<axis::dim>();
        for (quantiser_step const s : coded.steps) {
            bool const scaled = headroom != 1.0f && s.inverse > 0.0f;
            c.steps.push_back(scaled ? quantiser_step{s.step * headroom, s.inverse / headroom} : s);
        }
        return c;
    }
    [[nodiscard]] quantiser_step step(index_t d) const noexcept {
        return steps[steps.size() == 1 ? 0u : static_cast<std::size_t>(d)];
    }
};

/// Up to four queries, ready to be multiplied with an index. Codes lie four to a word.
class scan_queries {
public:
    static constexpr index_t rows_most = 4;
    static constexpr index_t words_most = max_head_dim / exec::dot_depth + 1; ///< whole pairs

    index_t rows = 0;
    alignas(64) std::array<std::array<std::int32_t, words_most>, rows_most> words{};
    std::array<std::int32_t, rows_most> starts{}; ///< where sums begin (exec::dot_start)

    /// code(d) in [-127, 127] for d < dim
    template <std::invocable<index_t> Code>
    void set(index_t row, index_t dim, Code code) noexcept {
        SOFATTN_ASSERT(row < rows_most && dim <= max_head_dim);
        auto& to = words[static_cast<std::size_t>(row)];
        to.fill(0);
        std::int32_t sum = 0;
        for (index_t d = 0; d < dim; ++d) {
            auto const byte = static_cast<std::int8_t>(code(d));
            std::memcpy(reinterpret_cast<char*>(to.data()) + d, &byte, 1);
            sum += byte;
        }
        starts[static_cast<std::size_t>(row)] = exec::dot_start(sum);
    }
};

/// The keys of one KV head as packed codes; scanned without allocation, built with.
///
/// A block is a register's width of keys: word by word of four channels, in each the bytes of all its
/// keys (exec::dot's panels); 4-bit codes hold two words in one. Bytes depend on the target, so an
/// index is no file format.
///
/// in     key        [dim], real units; append(key), or all at once: the same bytes
///        queries    scan_queries of `query_codes`
/// out    scores     [row, key], or [key] the largest of the rows; int32, as predict_scores gives
/// pre    dim as calibrated; scores have `padded(count)` places per row (SOFATTN_ASSERT)
/// error  construction throws `error` on a calibration that fits no head
/// events none: this is no circuit
/// exact  scores are bit-identical to predict_scores on key_index's codes, if calibrated on its keys
/// paper  DLZS phase 1.2, section III-A; the packing is not in the paper
template <packed_policy Policy>
class packed_index {
public:
    /// Stored codes take a nibble, not a byte.
    static constexpr bool nibbles = stored_key_bits<Policy>() <= 4;
    static constexpr index_t block_keys = exec::vector_width;

    /// Scores of so many keys take so many places.
    [[nodiscard]] static constexpr index_t padded(index_t keys) noexcept {
        return ceil_div(keys, block_keys) * block_keys;
    }

    packed_index() = default;
    explicit packed_index(key_calibration<Policy> calibration)
        : calibration_(std::move(calibration)) {
        index_t const dim = calibration_.dim;
        if (dim < 1 || dim > max_head_dim) {
            throw error("packed_index: head dimension", std::to_string(dim),
                        "from 1 to " + std::to_string(max_head_dim));
        }
        bool const steps_fit = std::ssize(calibration_.steps) ==
                               (Policy::key_step == granularity::per_channel ? dim : index_t{1});
        bool const centre_fits =
            std::ssize(calibration_.centre) == (Policy::centred_keys ? dim : index_t{0});
        if (!steps_fit || !centre_fits) {
            throw error("packed_index: calibration", "other steps or centre than the policy has",
                        "key_calibration<Policy>::of(keys)");
        }
        index_t const words = ceil_div(dim, exec::dot_depth);
        panels_ = nibbles ? ceil_div(words, index_t{2}) : words;
    }

    /// Room for so many keys, so that appending up to there allocates nothing.
    void reserve(index_t keys) {
        bytes_.reserve(static_cast<std::size_t>(ceil_div(keys, block_keys) * block_bytes()));
    }

    template <storage_float T>
    void append(view<T const, axis::dim> key) {
        SOFATTN_ASSERT(key.template extent<axis::dim>() == calibration_.dim);
        if (size_ % block_keys == 0) {
            // Code 0 everywhere, so that keys which are not there yet do no harm.
            std::uint8_t const zero = nibbles ? std::uint8_t{0x88} : exec::panel_byte(0);
            bytes_.insert(bytes_.end(), static_cast<std::size_t>(block_bytes()), zero);
        }
        std::uint8_t* const block = bytes_.data() + (size_ / block_keys) * block_bytes() +
                                    size_ % block_keys * exec::dot_depth;
        for (index_t d = 0; d < calibration_.dim; ++d) {
            int const code = code_of(to_float(key(d)), d);
            index_t const word = d / exec::dot_depth;
            std::uint8_t& at =
                block[(nibbles ? word / 2 : word) * exec::vector_bytes + d % exec::dot_depth];
            if constexpr (nibbles) {
                auto const nibble = static_cast<unsigned>(code + 8);
                at = static_cast<std::uint8_t>(word % 2 == 0 ? (at & 0xf0u) | nibble
                                                             : (at & 0x0fu) | (nibble << 4));
            } else {
                at = exec::panel_byte(code);
            }
        }
        ++size_;
    }
    template <storage_float T>
    void append(key_view<T const> keys) {
        reserve(size_ + keys.template extent<axis::key>());
        for (index_t k = 0; k < keys.template extent<axis::key>(); ++k) {
            append(keys.template slice<axis::key>(k));
        }
    }

    [[nodiscard]] index_t size() const noexcept { return size_; }
    [[nodiscard]] index_t dim() const noexcept { return calibration_.dim; }
    /// Elements that lay beyond the calibrated range and were clipped to it, of all keys so far.
    [[nodiscard]] index_t clipped() const noexcept { return clipped_; }
    [[nodiscard]] std::span<std::uint8_t const> bytes() const noexcept { return bytes_; }

    /// Codes of queries that share a step, as query_codes gives them with a step per tensor: the
    /// steps of channels are multiplied in first. query(row) gives [dim].
    template <class Query>
    void encode(index_t rows, Query query, scan_queries& into) const noexcept {
        encode_with(magnitude_step(rows, query), 0, rows, query, into);
    }
    /// The step of `rows` queries together, for those that are more than one scan takes.
    template <class Query>
    [[nodiscard]] quantiser_step magnitude_step(index_t rows, Query query) const noexcept {
        float most = 0.0f;
        for (index_t r = 0; r < rows; ++r) {
            auto const row = query(r);
            for (index_t d = 0; d < calibration_.dim; ++d) {
                most = std::max(most, std::abs(to_float(row(d)) * carried_step(d)));
            }
        }
        return quantiser_step::covering(most, code_limit<Policy::query_bits>);
    }
    /// Rows [first, first + rows) of queries with that step.
    template <class Query>
    void encode_with(quantiser_step step, index_t first, index_t rows, Query query,
                     scan_queries& into) const noexcept {
        constexpr int limit = code_limit<Policy::query_bits>;
        into.rows = rows;
        for (index_t r = 0; r < rows; ++r) {
            auto const row = query(first + r);
            into.set(r, calibration_.dim, [&](index_t d) {
                int const code = step.code(to_float(row(d)) * carried_step(d), limit);
                if constexpr (Policy::query == operand::leading_zero) {
                    return static_cast<int>(
                        lz_code::encode<Policy::query_bits, Policy::rounding>(code).value());
                } else {
                    return code;
                }
            });
        }
    }

    /// Scores of the first `count` keys, row by row, `stride` apart.
    void scores(scan_queries const& queries, index_t count, std::int32_t* to,
                index_t stride) const noexcept {
        scan(queries, count, [&](index_t key, auto const& sums) {
            exec::detail::unrolled<static_cast<int>(
                std::tuple_size_v<std::remove_cvref_t<decltype(sums)>>)>(
                [&](auto r) { sums[r].store_unaligned(to + r * stride + key); });
        });
    }
    /// The largest score of the rows, or of them and what is there already.
    void largest_scores(scan_queries const& queries, index_t count, std::int32_t* to,
                        bool and_old) const noexcept {
        scan(queries, count, [&](index_t key, auto const& sums) {
            auto most = sums[0];
            for (auto const& sum : sums) {
                most = exec::larger(most, sum);
            }
            if (and_old) {
                most = exec::larger(most, exec::vector_int32::load_unaligned(to + key));
            }
            most.store_unaligned(to + key);
        });
    }

private:
    [[nodiscard]] index_t block_bytes() const noexcept { return panels_ * exec::vector_bytes; }
    [[nodiscard]] float carried_step(index_t d) const noexcept {
        if (Policy::key_step != granularity::per_channel) {
            return 1.0f;
        }
        return calibration_.step(d).inverse > 0.0f ? calibration_.step(d).step : 0.0f;
    }
    [[nodiscard]] int code_of(float value, index_t d) noexcept {
        constexpr int limit = code_limit<Policy::key_bits>;
        quantiser_step const step = calibration_.step(d);
        float const centred =
            Policy::centred_keys ? value - calibration_.centre[static_cast<std::size_t>(d)] : value;
        clipped_ += std::abs(std::nearbyint(centred * step.inverse)) > float{limit} ? 1 : 0;
        int const code = step.code(centred, limit);
        return detail::store_operand<Policy::key, Policy::key_bits, Policy::rounding>(code);
    }
    /// A stored code as the dot product takes it.
    [[nodiscard]] static constexpr int factor(int stored) noexcept {
        return Policy::key == operand::leading_zero
                   ? lz_code::from_stored(static_cast<std::int8_t>(stored)).value()
                   : stored;
    }
    static constexpr exec::nibble_table table = [] {
        exec::nibble_table t{};
        for (int n = 0; n < 16; ++n) {
            t[static_cast<std::size_t>(n)] = exec::panel_byte(n == 0 ? 0 : factor(n - 8));
        }
        return t;
    }();

    template <class Take>
    void scan(scan_queries const& queries, index_t count, Take take) const noexcept {
        SOFATTN_ASSERT(count >= 0 && count <= size_);
        switch (queries.rows) {
        case 1: return scan_rows<1>(queries, count, take);
        case 2: return scan_rows<2>(queries, count, take);
        case 3: return scan_rows<3>(queries, count, take);
        case 4: return scan_rows<4>(queries, count, take);
        default: SOFATTN_ASSERT(queries.rows == 0);
        }
    }

    template <int Rows, class Take>
    void scan_rows(scan_queries const& queries, index_t count, Take take) const noexcept {
        // So many sums at a time hide the latency of their products.
        constexpr int together = Rows == 1 ? 4 : 2;
        index_t const blocks = ceil_div(count, block_keys);
        index_t b = 0;
        for (; b + together <= blocks; b += together) {
            scan_blocks<Rows, together>(queries, b, take);
        }
        for (; b < blocks; ++b) {
            scan_blocks<Rows, 1>(queries, b, take);
        }
    }

    template <int Rows, int Blocks, class Take>
    [[gnu::always_inline]] void scan_blocks(scan_queries const& queries, index_t first,
                                            Take take) const noexcept {
        using exec::vector_int32;
        std::array<std::uint8_t const*, Blocks> panels;
        exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
            panels[b] = bytes_.data() + (first + b) * block_bytes();
        });
        std::array<std::array<vector_int32, Rows>, Blocks> sums;
        exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                sums[b][r] = vector_int32(queries.starts[r]);
            });
        });
        // Requests are spread over the work: a burst of them would fill the processor's queue.
        auto const left = static_cast<index_t>(bytes_.data() + bytes_.size() - panels[0]);
        bool const ask = left >= bytes_ahead + Blocks * block_bytes();
        for (index_t p = 0; p < panels_; ++p) {
            if (ask) {
                exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                    exec::prefetch(panels[b] + p * exec::vector_bytes + bytes_ahead,
                                   exec::vector_bytes);
                });
            }
            if constexpr (nibbles) {
                std::array<exec::nibble_panels, Blocks> words;
                exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                    words[b] = exec::nibble_panels::of(panels[b] + p * exec::vector_bytes, table);
                });
                exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                    auto const four = queries.words[r].data() + 2 * p;
                    exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                        sums[b][r] = exec::dot(sums[b][r], words[b].low, four[0]);
                    });
                    exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                        sums[b][r] = exec::dot(sums[b][r], words[b].high, four[1]);
                    });
                });
            } else {
                exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                    std::int32_t const four = queries.words[r][static_cast<std::size_t>(p)];
                    exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                        sums[b][r] =
                            exec::dot(sums[b][r], panels[b] + p * exec::vector_bytes, four);
                    });
                });
            }
        }
        exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
            take((first + b) * block_keys, sums[b]);
        });
    }

    static constexpr index_t bytes_ahead = 4096; ///< requests in flight

    key_calibration<Policy> calibration_;
    std::vector<std::uint8_t> bytes_; ///< [block, panel, key, channel of the word]
    index_t panels_ = 0;              ///< per block
    index_t size_ = 0;                ///< keys
    index_t clipped_ = 0;
};

} // namespace sofattn::dlzs
