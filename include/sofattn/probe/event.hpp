// SPDX-License-Identifier: MIT
// The closed list of logical events, and the stages that emit them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sofattn::probe {

/// Who emits: the engines of Fig. 6 and 11.
enum class stage {
    key_prediction,   ///< K^ = X Wk from leading-zero codes (phase 1.1)
    score_prediction, ///< A^ = Q K^T estimated (phase 1.2)
    selection,        ///< top-k
    kv_generation,    ///< exact K and V of selected tokens
    attention,        ///< softmax and weighted sum of the selected set
    compensation,     ///< what dropped keys weigh, given to a mean of their values
    schedule,         ///< order in which keys and values are loaded
};
inline constexpr std::size_t stage_count = 7;

/// One unit of logical work of the modelled circuit, never a SIMD lane or padding.
enum class event {
    lz_encode,      ///< a value converted to its leading-zero code
    shift_add_8,    ///< an 8-bit operand shifted by a code and accumulated
    shift_add_16,   ///< a 16-bit operand shifted by a code and accumulated
    skipped_zero,   ///< a product not computed, because a code is zero
    multiply_add_4, ///< predictor: product of operands of at most 4 bits (the narrower),
                    ///< accumulated
    multiply_add_8,
    multiply_add_16,
    compare,      ///< one comparator, or one comparison with a threshold
    clipped,      ///< an entry that the clipping unit replaced before the sorter
    add,          ///< formal addition or subtraction
    multiply,     ///< formal multiplication
    exp,          ///< formal exponential
    divide,       ///< formal division
    max_update,   ///< the softmax maximum was replaced out of order (AP module, mode 1)
    token_bytes,  ///< X read
    weight_bytes, ///< projection weights or their codes read
    index_bytes,  ///< predictor's form of the keys read
    query_bytes,  ///< Q read
    key_bytes,    ///< exact K read
    value_bytes,  ///< exact V read
    output_bytes, ///< O written
};
inline constexpr std::size_t event_count = 21;

namespace detail {
// clang-format off
inline constexpr std::array<std::string_view, stage_count> stage_names{
    "key_prediction", "score_prediction", "selection", "kv_generation", "attention", "compensation",
    "schedule"};
inline constexpr std::array<std::string_view, event_count> event_names{
    "lz_encode", "shift_add_8", "shift_add_16", "skipped_zero", "multiply_add_4", "multiply_add_8",
    "multiply_add_16", "compare", "clipped", "add", "multiply", "exp", "divide", "max_update",
    "token_bytes", "weight_bytes", "index_bytes", "query_bytes", "key_bytes", "value_bytes",
    "output_bytes"};
// clang-format on
} // namespace detail

static_assert(static_cast<std::size_t>(stage::schedule) + 1 == stage_count);
static_assert(static_cast<std::size_t>(event::output_bytes) + 1 == event_count);

[[nodiscard]] constexpr std::string_view name(stage s) noexcept {
    return detail::stage_names[static_cast<std::size_t>(s)];
}
[[nodiscard]] constexpr std::string_view name(event e) noexcept {
    return detail::event_names[static_cast<std::size_t>(e)];
}

/// Bytes of one element of Q, K, V, X or O in the formal stage: the circuit computes on 16 bits
/// (paper section IV-B), however the software stores them.
inline constexpr std::uint64_t formal_operand_bytes = 2;

/// Traffic, as opposed to arithmetic.
[[nodiscard]] constexpr bool is_bytes(event e) noexcept { return e >= event::token_bytes; }

} // namespace sofattn::probe
