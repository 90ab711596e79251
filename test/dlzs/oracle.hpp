// SPDX-License-Identifier: MIT
// Definitions of the predictors' arithmetic by the longest way round, for the tests of dlzs.
#pragma once

#include "support/generators.hpp"
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/ledger.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace sofattn::test {

template <index_t Width>
using counted = exec::executor<exec::scalar_lanes<Width>, probe::ledger, double>;
template <index_t Width>
using silent = exec::executor<exec::scalar_lanes<Width>, probe::silent, double>;

/// Calls f.template operator()<Width>() for every width that tests run.
template <class F>
void for_each_width(F f) {
    f.template operator()<1>();
    f.template operator()<3>();
    f.template operator()<4>();
    f.template operator()<8>();
    f.template operator()<16>();
}

/// Around every width: 0, 1, W - 1, W, W + 1.
inline constexpr index_t telling_counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 35};

/// W - LZ(|x|), leading zeros counted one by one in a word of W bits.
[[nodiscard]] inline int bit_length(int x, int bits) {
    auto const word = static_cast<unsigned>(std::abs(x));
    int zeros = 0;
    for (int place = bits - 1; place >= 0 && (word >> place) % 2 == 0; --place) {
        ++zeros;
    }
    return bits - zeros;
}

/// What a stored operand stands for.
[[nodiscard]] inline std::int64_t decoded(dlzs::operand form, int stored) {
    if (form == dlzs::operand::integer || stored == 0) {
        return stored;
    }
    std::int64_t power = 1;
    for (int place = 1; place < std::abs(stored); ++place) {
        power *= 2;
    }
    return stored < 0 ? -power : power;
}

/// The stored form of an integer, rounded down.
[[nodiscard]] inline int stored_form(dlzs::operand form, int bits, int x) {
    if (form == dlzs::operand::integer) {
        return x;
    }
    return x < 0 ? -bit_length(x, bits) : bit_length(x, bits);
}

/// Random stored operands: integers from -limit to limit, or codes of such.
template <class T, class... Axes>
[[nodiscard]] tensor<T, Axes...> random_operands(generator& random,
                                                 std::array<index_t, sizeof...(Axes)> extents,
                                                 dlzs::operand form, int bits, double zeros) {
    auto result = random_codes<T, Axes...>(random, extents, (1 << (bits - 1)) - 1, zeros);
    for_each_index(extents, [&](auto const& i) {
        int const x = at(result.view(), i);
        at(result.view(), i) = static_cast<T>(stored_form(form, bits, x));
    });
    return result;
}

/// Largest |x - decoded code of x| for a step that covers x, in real units. Quantising costs half a
/// step and up to four roundings of float; a power of two is at most |code| / 2 off, and
/// |code| * step is at most |x| and half a step.
[[nodiscard]] inline double operand_error(dlzs::operand form, int bits, double step, double x) {
    if (form == dlzs::operand::real) {
        return 0.0;
    }
    double const quantised = step * (0.5 + 4 * 0x1p-24 * ((1 << (bits - 1)) - 1));
    return form == dlzs::operand::integer ? quantised : quantised + (std::abs(x) + quantised) / 2;
}

} // namespace sofattn::test
