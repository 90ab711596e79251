// SPDX-License-Identifier: MIT
// The running state (m, l, o) of an attention row, and the merge of two, paper Fig. 10b.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace sofattn::sufa {

/// Of the keys seen so far: m the largest logit (or any reference close to it), l the sum of
/// exp(logit - m), o the sum of exp(logit - m) * value. O = o / l. A commutative monoid under
/// `merge`, up to rounding: ranges of keys may be attended apart and put together in any grouping.
template <class Real>
struct softmax_state {
    Real m = Real(-std::numeric_limits<double>::infinity());
    Real l{0.0};
    std::span<Real> o; // [value_dim], caller-owned

    /// A row that has seen no key; clears o.
    static softmax_state empty(std::span<Real> o) noexcept {
        for (Real& x : o) {
            x = Real(0.0);
        }
        softmax_state state;
        state.o = o;
        return state;
    }

    /// Reads a flag, so to speak: not a comparison that a stage would count.
    [[nodiscard]] bool is_empty() const noexcept { return !(static_cast<double>(l) > 0.0); }

    /// Takes in the state of other keys of the same row.
    void merge(softmax_state const& other) noexcept {
        SOFATTN_ASSERT(o.size() == other.o.size());
        if (other.is_empty()) {
            return;
        }
        if (is_empty()) {
            m = other.m;
            l = other.l;
            for (std::size_t d = 0; d < o.size(); ++d) {
                o[d] = other.o[d];
            }
            return;
        }
        using std::exp;
        Real const top = m < other.m ? other.m : m;
        Real const mine = exp(m - top);
        Real const theirs = exp(other.m - top);
        m = top;
        l = l * mine + other.l * theirs;
        for (std::size_t d = 0; d < o.size(); ++d) {
            o[d] = o[d] * mine + other.o[d] * theirs;
        }
    }

    /// O = o / l into `row` [value_dim]; zeros for a row without keys.
    void finish(std::span<float> row) const noexcept {
        SOFATTN_ASSERT(row.size() == o.size());
        bool const none = is_empty();
        for (std::size_t d = 0; d < o.size(); ++d) {
            row[d] = none ? 0.0f : static_cast<float>(static_cast<double>(o[d] / l));
        }
    }

    /// ln of the sum of exp(logit): what split-key attention exchanges.
    [[nodiscard]] double log_sum_exp() const noexcept {
        return static_cast<double>(m) + std::log(static_cast<double>(l));
    }
};

} // namespace sofattn::sufa
