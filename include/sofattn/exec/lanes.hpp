// SPDX-License-Identifier: MIT
// How arithmetic runs: independent outputs side by side. Here the plain ones, for any width.
#pragma once

#include <sofattn/core/types.hpp>

#include <array>
#include <concepts>
#include <cstddef>

namespace sofattn::exec {

/// A number is itself.
template <class T>
using plain_number = T;

/// `Width` numbers that are computed alike and never meet: there is no sum across lanes, so the
/// width cannot change a result. `Number` lets a test replace T by a type that watches.
template <index_t Width, template <class> class Number = plain_number>
    requires(Width >= 1)
struct scalar_lanes {
    static constexpr index_t width = Width;

    template <class T>
    using number = Number<T>;

    template <class T>
    struct pack {
        std::array<number<T>, static_cast<std::size_t>(Width)> lane{};

        [[nodiscard]] static constexpr pack fill(T value) {
            pack p;
            p.lane.fill(number<T>(value));
            return p;
        }

        friend constexpr pack operator+(pack a, pack const& b) {
            for (std::size_t i = 0; i < a.lane.size(); ++i) {
                a.lane[i] = a.lane[i] + b.lane[i];
            }
            return a;
        }
        friend constexpr pack operator*(pack a, pack const& b) {
            for (std::size_t i = 0; i < a.lane.size(); ++i) {
                a.lane[i] = a.lane[i] * b.lane[i];
            }
            return a;
        }
        /// Each lane by its own distance, in [0, bits of T).
        friend constexpr pack operator<<(pack a, pack<int> const& distance) {
            for (std::size_t i = 0; i < a.lane.size(); ++i) {
                a.lane[i] = a.lane[i] << distance.lane[i];
            }
            return a;
        }
    };

    /// Lane i is value(i) for i < count, zero beyond: a tail is a shorter block of the same code.
    template <class T, std::invocable<index_t> Value>
    [[nodiscard]] static constexpr pack<T> gather(index_t count, Value value) {
        pack<T> p;
        for (index_t i = 0; i < count && i < Width; ++i) {
            p.lane[static_cast<std::size_t>(i)] = number<T>(static_cast<T>(value(i)));
        }
        return p;
    }
};

/// What a stage may ask of lanes.
template <class L>
concept lanes = requires(typename L::template pack<int> p) {
    { L::width } -> std::convertible_to<index_t>;
    { p + p } -> std::same_as<typename L::template pack<int>>;
    { p* p } -> std::same_as<typename L::template pack<int>>;
    { p << p } -> std::same_as<typename L::template pack<int>>;
};

} // namespace sofattn::exec
