// SPDX-License-Identifier: MIT
// Score prediction (phase 1.2), paper sections III-A and IV-B.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

namespace sofattn::dlzs {

/// Predicts the scores of one query against a run of keys.
///
/// in     query  [dim]        codes of one query (query_codes::row)
///        keys   [key, dim]   codes of the run (key_index::codes, a range of keys)
/// out    scores [key]        predicted q.k in units of query_codes::product_step
/// pre    equal dim, dim <= max_head_dim, scores has a place per key (SOFATTN_ASSERT)
/// error  none at run time; a bad policy does not satisfy dlzs::policy
/// events a product per (key, dim): shift_add or multiply_add, or skipped_zero where a coded
///        policy meets a zero operand (the zero eliminator keeps zeros of either side out)
/// exact  bit-identical on every executor; the sum cannot overflow (dlzs::score_type)
/// paper  DLZS phase 1.2, section III-A, Fig. 7 and 12
template <policy Policy>
struct predict_scores {
    using score = score_type<Policy>;
    using query_element = stored_operand<Policy::query, Policy::query_bits>;
    using key_element = stored_operand<Policy::key, Policy::key_bits>;

    template <exec::executor_like X>
    void operator()(X& x, view<query_element const, axis::dim> query,
                    view<key_element const, axis::key, axis::dim> keys,
                    std::span<score> scores) const noexcept {
        using lanes = typename X::lanes_type;
        index_t const count = keys.template extent<axis::key>();
        index_t const dims = keys.template extent<axis::dim>();
        SOFATTN_ASSERT(query.template extent<axis::dim>() == dims && dims <= max_head_dim);
        SOFATTN_ASSERT(std::ssize(scores) == count);

        std::uint64_t skipped = 0;
        for (index_t first = 0; first < count; first += lanes::width) {
            index_t const block = std::min<index_t>(lanes::width, count - first);
            auto sum = lanes::template pack<score>::fill(score{0});
            for (index_t d = 0; d < dims; ++d) {
                auto const key = [&](index_t i) { return keys(first + i, d); };
                accumulate<lanes>(sum, query(d), key, block, skipped);
            }
            for (index_t i = 0; i < block; ++i) {
                scores[static_cast<std::size_t>(first + i)] =
                    static_cast<score>(sum.lane[static_cast<std::size_t>(i)]);
            }
        }
        if constexpr (X::probe_type::enabled) {
            static_assert(Policy::key != operand::real,
                          "predict_scores: the exact predictor is an oracle, not a circuit; count "
                          "with dlzs8, int8 or another integer policy");
            auto const products = static_cast<std::uint64_t>(count * dims);
            x.probe(probe::stage::score_prediction, product_event<Policy>(), products - skipped);
            x.probe(probe::stage::score_prediction, probe::event::skipped_zero, skipped);
        }
    }

private:
    /// sum += query * key in every lane, in the policy's arithmetic.
    template <class Lanes, class Key>
    static void accumulate(typename Lanes::template pack<score>& sum, query_element query, Key key,
                           index_t block, std::uint64_t& skipped) noexcept {
        if constexpr (Policy::key == operand::real) {
            sum = sum + Lanes::template pack<score>::fill(static_cast<score>(query)) *
                            Lanes::template gather<score>(block, key);
        } else if constexpr (Policy::query == operand::integer && Policy::key == operand::integer) {
            sum = sum + Lanes::template pack<score>::fill(query) *
                            Lanes::template gather<score>(block, key);
        } else {
            index_t zeros = 0;
            for (index_t i = 0; i < block; ++i) {
                zeros += query == 0 || key(i) == 0 ? 1 : 0;
            }
            skipped += static_cast<std::uint64_t>(zeros);
            if (zeros < block) { // the zero eliminator: all-zero work never enters the array
                sum = sum + (Lanes::template gather<score>(
                                 block, [&](index_t i) { return shifted_operand(query, key(i)); })
                             << Lanes::template gather<int>(
                                    block, [&](index_t i) { return distance(query, key(i)); }));
            }
        }
    }

    /// The operand that is shifted, with the sign of the product; 0 if the product is.
    static constexpr score shifted_operand(query_element query, key_element key) noexcept {
        if constexpr (Policy::key == operand::integer) {
            return static_cast<score>(lz_code::from_stored(query).sign() * key);
        } else if constexpr (Policy::query == operand::integer) {
            return static_cast<score>(lz_code::from_stored(key).sign() * query);
        } else {
            return static_cast<score>(lz_code::from_stored(query).sign() *
                                      lz_code::from_stored(key).sign());
        }
    }

    static constexpr int distance(query_element query, key_element key) noexcept {
        if (query == 0 || key == 0) {
            return 0;
        }
        int places = 0;
        if constexpr (Policy::query == operand::leading_zero) {
            places += lz_code::from_stored(query).shift();
        }
        if constexpr (Policy::key == operand::leading_zero) {
            places += lz_code::from_stored(key).shift();
        }
        return places;
    }
};

} // namespace sofattn::dlzs
