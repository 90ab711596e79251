// SPDX-License-Identifier: MIT
// What a score predictor computes: number forms of queries and keys, paper section III-A.
#pragma once

#include <sofattn/core/quantise.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/probe/event.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace sofattn::dlzs {

/// Form of one operand of the predicted product.
enum class operand {
    integer,      ///< signed integer
    leading_zero, ///< leading-zero code of a signed integer
    real          ///< as stored; only for the oracle
};

/// The paper's phase 1.2 on 8-bit data: keys stay int8, queries become 4-bit codes.
struct dlzs8 {
    static constexpr char const* name = "dlzs8";
    static constexpr operand query = operand::leading_zero;
    static constexpr int query_bits = 8;
    static constexpr granularity query_step = granularity::per_tensor;
    static constexpr operand key = operand::integer;
    static constexpr int key_bits = 8;
    static constexpr granularity key_step = granularity::per_tensor;
    static constexpr bool centred_keys = false;
    static constexpr bool rotated = false;
    static constexpr lz_rounding rounding = lz_rounding::down;
};

/// The paper's own widths: 16-bit K^, 16-bit queries as 5-bit codes (section IV-B).
struct dlzs16 : dlzs8 {
    static constexpr char const* name = "dlzs16";
    static constexpr int query_bits = 16;
    static constexpr int key_bits = 16;
};

/// The vanilla scheme that DLZS is compared with (Fig. 7): both operands coded.
struct two_sided : dlzs8 {
    static constexpr char const* name = "two_sided";
    static constexpr operand key = operand::leading_zero;
};

/// 4-bit leading-zero keys, int8 queries: half the index of dlzs8. Not in the paper, which codes
/// the other operand; here because bytes per key decide in decode.
struct lz_keys : dlzs8 {
    static constexpr char const* name = "lz_keys";
    static constexpr operand query = operand::integer;
    static constexpr operand key = operand::leading_zero;
};

/// int8 x int8: the rival that costs the same instruction as DLZS on a CPU.
struct int8 : dlzs8 {
    static constexpr char const* name = "int8";
    static constexpr operand query = operand::integer;
};

/// int8 with a step per query: rows of small queries keep all their bits.
struct int8_per_query : int8 {
    static constexpr char const* name = "int8_per_query";
    static constexpr granularity query_step = granularity::per_row;
};

/// 4-bit keys, a step per channel, channel means taken off (softmax does not see them). Not in the
/// paper: the best index of its size.
struct centred_int4 : int8 {
    static constexpr char const* name = "centred_int4";
    static constexpr int key_bits = 4;
    static constexpr granularity key_step = granularity::per_channel;
    static constexpr bool centred_keys = true;
};

/// int8 whose scores are good enough to attend with: queries and centred keys are rotated first
/// (core/hadamard.hpp), so that no large channel takes the range of the others. Not in the paper;
/// rotations before quantisers are QuaRot's (arXiv 2404.00456).
struct rotated_int8 : int8_per_query {
    static constexpr char const* name = "rotated_int8";
    static constexpr bool centred_keys = true;
    static constexpr bool rotated = true;
};

/// 4-bit x 4-bit multiplication with one step per head: the predictor of the baseline in Fig. 17.
struct int4 : int8 {
    static constexpr char const* name = "int4";
    static constexpr int query_bits = 4;
    static constexpr int key_bits = 4;
};

/// The oracle: exact dot products. Refuses to be counted, since no circuit predicts this way.
struct exact : dlzs8 {
    static constexpr char const* name = "exact";
    static constexpr operand query = operand::real;
    static constexpr operand key = operand::real;
};

/// No prediction: every score is 0 and costs nothing; for dense attention.
struct unpredicted : exact {
    static constexpr char const* name = "unpredicted";
};

template <class P>
concept policy = requires {
    { P::name } -> std::convertible_to<char const*>;
    { P::query } -> std::convertible_to<operand>;
    { P::key } -> std::convertible_to<operand>;
    { P::query_bits } -> std::convertible_to<int>;
    { P::key_bits } -> std::convertible_to<int>;
    { P::query_step } -> std::convertible_to<granularity>;
    { P::key_step } -> std::convertible_to<granularity>;
    { P::centred_keys } -> std::convertible_to<bool>;
    { P::rotated } -> std::convertible_to<bool>;
    { P::rounding } -> std::convertible_to<lz_rounding>;
    requires(P::query_bits >= 2 && P::query_bits <= 16);
    requires(P::key_bits >= 2 && P::key_bits <= 16);
    // A query's codes must be comparable across its row: a step per channel cannot be.
    requires(P::query_step != granularity::per_channel);
    // Keys of one row are ranked by integers: a step per key would make them incomparable.
    requires(P::key_step != granularity::per_row);
    // Steps per channel would be multiplied into queries that are not of those channels any more.
    requires(!P::rotated || P::key_step == granularity::per_tensor);
    // Real operands come in pairs, as they are.
    requires(!P::rotated || P::key != operand::real);
    requires((P::query == operand::real) == (P::key == operand::real));
};

namespace detail {

/// Largest magnitude an operand can take.
consteval std::int64_t largest(operand form, int bits) {
    return form == operand::leading_zero ? std::int64_t{1} << (bits - 2)
                                         : (std::int64_t{1} << (bits - 1)) - 1;
}

/// 32 bits where widths and head size prove that the sum fits in half the range (so that selectors
/// may subtract a radius), else 64.
template <class Policy>
inline constexpr bool narrow_sum = largest(Policy::query, Policy::query_bits) *
                                       largest(Policy::key, Policy::key_bits) * max_head_dim
                                   <= std::int64_t{1} << 30;

} // namespace detail

/// Type of a predicted score: int32, int64, or double for the oracle.
template <policy Policy>
using score_type =
    std::conditional_t<Policy::key == operand::real, double,
                       std::conditional_t<detail::narrow_sum<Policy>, std::int32_t, std::int64_t>>;

/// The event of one product: a shift-add if an operand is coded, else a multiply-add of the
/// narrower operand's width.
template <policy Policy>
    requires(Policy::key != operand::real)
[[nodiscard]] consteval probe::event product_event() {
    constexpr int plain_bits =
        Policy::query == operand::leading_zero ? Policy::key_bits : Policy::query_bits;
    constexpr int narrow =
        Policy::query_bits < Policy::key_bits ? Policy::query_bits : Policy::key_bits;
    if (Policy::query == operand::leading_zero || Policy::key == operand::leading_zero) {
        return plain_bits <= 8 ? probe::event::shift_add_8 : probe::event::shift_add_16;
    }
    return narrow <= 4   ? probe::event::multiply_add_4
           : narrow <= 8 ? probe::event::multiply_add_8
                         : probe::event::multiply_add_16;
}

/// Bits of one stored key element: codes are sign and bit length.
template <policy Policy>
[[nodiscard]] consteval int stored_key_bits() {
    if (Policy::key == operand::leading_zero) {
        return Policy::key_bits <= 8 ? 4 : 5;
    }
    return Policy::key_bits;
}

} // namespace sofattn::dlzs
