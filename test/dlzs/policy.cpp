// SPDX-License-Identifier: MIT
#include <sofattn/dlzs/policy.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <set>
#include <string>
#include <type_traits>

using namespace sofattn;
using dlzs::operand;
using dlzs::product_event;
using dlzs::score_type;
using dlzs::stored_key_bits;
using probe::event;

namespace {

// clang-format off
struct query_step_per_row : dlzs::dlzs8 { static constexpr auto query_step = granularity::per_row; };
struct query_step_per_channel : dlzs::dlzs8 { static constexpr auto query_step = granularity::per_channel; };
struct key_step_per_row : dlzs::dlzs8 { static constexpr auto key_step = granularity::per_row; };
struct key_step_per_channel : dlzs::dlzs8 { static constexpr auto key_step = granularity::per_channel; };
struct one_bit_query : dlzs::dlzs8 { static constexpr int query_bits = 1; };
struct one_bit_key : dlzs::dlzs8 { static constexpr int key_bits = 1; };
struct two_bit_key : dlzs::int8 { static constexpr int key_bits = 2; };
struct wide_query : dlzs::dlzs8 { static constexpr int query_bits = 17; };
struct wide_key : dlzs::dlzs8 { static constexpr int key_bits = 17; };
struct half_real : dlzs::dlzs8 { static constexpr auto query = operand::real; };
struct other_half_real : dlzs::dlzs8 { static constexpr auto key = operand::real; };
struct rotated_channels : dlzs::rotated_int8 { static constexpr auto key_step = granularity::per_channel; };
struct rotated_exact : dlzs::exact { static constexpr bool rotated = true; };
struct nearest : dlzs::dlzs8 { static constexpr auto rounding = dlzs::lz_rounding::nearest; };
struct without_rounding { // and without the rest
    static constexpr char const* name = "without_rounding";
    static constexpr auto query = operand::integer;
    static constexpr auto key = operand::integer;
    static constexpr int query_bits = 8;
    static constexpr int key_bits = 8;
};
struct text_for_bits : dlzs::dlzs8 { static constexpr char const* key_bits = "8"; };

struct int16 : dlzs::int8 { static constexpr int query_bits = 16; static constexpr int key_bits = 16; };
struct int12 : dlzs::int8 { static constexpr int query_bits = 12; static constexpr int key_bits = 12; };
struct int12x13 : int12 { static constexpr int key_bits = 13; };
struct two_sided12 : dlzs::two_sided { static constexpr int query_bits = 12; static constexpr int key_bits = 14; };
struct two_sided13 : two_sided12 { static constexpr int query_bits = 13; };
struct two_sided16 : dlzs::two_sided { static constexpr int query_bits = 16; static constexpr int key_bits = 16; };
struct lz_keys16 : dlzs::lz_keys { static constexpr int query_bits = 16; };
struct int4x16 : dlzs::int4 { static constexpr int key_bits = 16; };
struct lz16_keys : dlzs::lz_keys { static constexpr int key_bits = 16; };
// clang-format on

} // namespace

TEST_CASE("dlzs.policy: the library's own policies and sensible variants are accepted") {
    static_assert(dlzs::policy<dlzs::dlzs8> && dlzs::policy<dlzs::dlzs16>);
    static_assert(dlzs::policy<dlzs::two_sided> && dlzs::policy<dlzs::lz_keys>);
    static_assert(dlzs::policy<dlzs::int8> && dlzs::policy<dlzs::int4>);
    static_assert(dlzs::policy<dlzs::centred_int4> && dlzs::policy<dlzs::int8_per_query>);
    static_assert(dlzs::policy<dlzs::exact> && dlzs::policy<dlzs::unpredicted>);
    static_assert(dlzs::policy<dlzs::rotated_int8>);
    static_assert(dlzs::policy<query_step_per_row> && dlzs::policy<key_step_per_channel>);
    static_assert(dlzs::policy<two_bit_key> && dlzs::policy<nearest>);
    CHECK(std::is_empty_v<dlzs::dlzs8>);
}

TEST_CASE("dlzs.policy: what cannot work is rejected") {
    static_assert(!dlzs::policy<query_step_per_channel>);
    static_assert(!dlzs::policy<key_step_per_row>);
    static_assert(!dlzs::policy<one_bit_query> && !dlzs::policy<one_bit_key>);
    static_assert(!dlzs::policy<wide_query> && !dlzs::policy<wide_key>);
    static_assert(!dlzs::policy<rotated_channels> && !dlzs::policy<rotated_exact>);
    static_assert(!dlzs::policy<half_real> && !dlzs::policy<other_half_real>);
    static_assert(!dlzs::policy<without_rounding> && !dlzs::policy<text_for_bits>);
    CHECK_FALSE(dlzs::policy<int>);
}

TEST_CASE("dlzs.policy: scores have 32 bits where every sum fits in half of their range") {
    static_assert(std::is_same_v<score_type<dlzs::dlzs8>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::dlzs16>, std::int64_t>);
    static_assert(std::is_same_v<score_type<dlzs::two_sided>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::lz_keys>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::int8>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::int8_per_query>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::centred_int4>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::int4>, std::int32_t>);
    static_assert(std::is_same_v<score_type<dlzs::exact>, double>);
    static_assert(std::is_same_v<score_type<dlzs::unpredicted>, double>);
    static_assert(std::is_same_v<score_type<int16>, std::int64_t>);
    // At the edge: 2047 * 2047 * 256 = 1'072'693'504 <= 2^30 < 2047 * 4095 * 256.
    static_assert(std::is_same_v<score_type<int12>, std::int32_t>);
    static_assert(std::is_same_v<score_type<int12x13>, std::int64_t>);
    // 2^10 * 2^12 * 2^8 = 2^30 still fits.
    static_assert(std::is_same_v<score_type<two_sided12>, std::int32_t>);
    static_assert(std::is_same_v<score_type<two_sided13>, std::int64_t>);
    CHECK(sizeof(score_type<two_sided16>) == 8);
}

TEST_CASE("dlzs.policy: a product is a shift-add if an operand is coded, else a multiply-add") {
    static_assert(product_event<dlzs::dlzs8>() == event::shift_add_8);
    static_assert(product_event<dlzs::dlzs16>() == event::shift_add_16);
    static_assert(product_event<dlzs::two_sided>() == event::shift_add_8);
    static_assert(product_event<two_sided16>() == event::shift_add_16);
    static_assert(product_event<dlzs::lz_keys>() == event::shift_add_8);
    static_assert(product_event<lz_keys16>() == event::shift_add_16); // the query is shifted
    static_assert(product_event<lz16_keys>() == event::shift_add_8);
    static_assert(product_event<dlzs::int8>() == event::multiply_add_8);
    static_assert(product_event<dlzs::int4>() == event::multiply_add_4);
    static_assert(product_event<dlzs::centred_int4>() == event::multiply_add_4); // the narrower
    static_assert(product_event<int4x16>() == event::multiply_add_4);
    static_assert(product_event<int12>() == event::multiply_add_16);
    CHECK(product_event<int16>() == event::multiply_add_16);
}

TEST_CASE("dlzs.policy: a stored key is a 4-bit or 5-bit code, or the integer") {
    static_assert(stored_key_bits<dlzs::dlzs8>() == 8);
    static_assert(stored_key_bits<dlzs::dlzs16>() == 16);
    static_assert(stored_key_bits<dlzs::two_sided>() == 4);
    static_assert(stored_key_bits<dlzs::lz_keys>() == 4);
    static_assert(stored_key_bits<lz16_keys>() == 5);
    static_assert(stored_key_bits<dlzs::int8>() == 8);
    static_assert(stored_key_bits<dlzs::int4>() == 4);
    CHECK(stored_key_bits<dlzs::centred_int4>() == 4);
}

TEST_CASE("dlzs.policy: names differ, for reports") {
    std::set<std::string> const names{
        dlzs::dlzs8::name,          dlzs::dlzs16::name,      dlzs::two_sided::name,
        dlzs::lz_keys::name,        dlzs::int8::name,        dlzs::int4::name,
        dlzs::centred_int4::name,   dlzs::exact::name,       dlzs::unpredicted::name,
        dlzs::int8_per_query::name, dlzs::rotated_int8::name};
    CHECK(names.size() == 11);
}
