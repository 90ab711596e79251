// SPDX-License-Identifier: MIT
// Seeded test data: matrices, score rows, and strided copies of either.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <numbers>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::test {

/// SOFATTN_TEST_SEED of the environment, or a fixed number.
[[nodiscard]] inline std::uint64_t seed() {
    static std::uint64_t const chosen = [] {
        char const* text = std::getenv("SOFATTN_TEST_SEED");
        return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240817ull;
    }();
    return chosen;
}

/// splitmix64 (Steele, Lea, Flood 2014) and what is drawn from it; the standard distributions would
/// give other numbers with every library.
class generator {
public:
    explicit generator(std::uint64_t state = seed()) noexcept : state_(state) {}

    std::uint64_t next() noexcept {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    /// From low to high, both included.
    template <class Integer = index_t>
    [[nodiscard]] Integer integer(Integer low, Integer high) noexcept {
        auto const count = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) + 1;
        return static_cast<Integer>(static_cast<std::uint64_t>(low) +
                                    (count == 0 ? next() : next() % count));
    }
    /// In [low, high).
    [[nodiscard]] double uniform(double low = -1.0, double high = 1.0) noexcept {
        return low + (high - low) * (static_cast<double>(next() >> 11) * 0x1p-53);
    }
    [[nodiscard]] double normal(double deviation = 1.0) noexcept { // Box-Muller
        double const radius = std::sqrt(-2.0 * std::log(1.0 - uniform(0.0, 1.0)));
        return deviation * radius * std::cos(2.0 * std::numbers::pi * uniform(0.0, 1.0));
    }
    [[nodiscard]] bool chance(double probability) noexcept {
        return uniform(0.0, 1.0) < probability;
    }
    template <class T>
    void shuffle(std::vector<T>& items) noexcept {
        for (std::size_t i = items.size(); i > 1; --i) {
            std::swap(items[i - 1], items[integer<std::size_t>(0, i - 1)]);
        }
    }

private:
    std::uint64_t state_;
};

/// `SOFATTN_GENERATOR(random);` declares a generator, and names the seed if the case fails.
#define SOFATTN_GENERATOR(name)                                                                    \
    ::sofattn::test::generator name;                                                               \
    INFO("rerun with SOFATTN_TEST_SEED=", ::sofattn::test::seed())

/// Calls f(indices) for every element of `extents`, last axis fastest.
template <std::size_t Rank, class F>
void for_each_index(std::array<index_t, Rank> extents, F f) {
    index_t const count = std::accumulate(extents.begin(), extents.end(), index_t{1},
                                          [](index_t a, index_t b) { return a * b; });
    std::array<index_t, Rank> at{};
    for (index_t n = 0; n < count; ++n) {
        f(std::as_const(at));
        for (std::size_t a = Rank; a-- > 0 && ++at[a] == extents[a];) {
            at[a] = 0;
        }
    }
}

/// One element of a view by an array of indices.
template <class T, class... Axes>
[[nodiscard]] T& at(view<T, Axes...> of, std::array<index_t, sizeof...(Axes)> const& indices) {
    return std::apply(of, indices);
}

// --- matrices ------------------------------------------------------------------------------------

/// How elements are distributed. The last axis counts as the channel.
enum class spread {
    normal,           ///< standard normal
    uniform,          ///< in [-1, 1)
    outlier_channels, ///< normal, every 16th channel 30 times larger
    with_zeros        ///< normal, a third of the elements and every 5th row zero
};
inline constexpr std::array all_spreads{spread::normal, spread::uniform, spread::outlier_channels,
                                        spread::with_zeros};

/// random_matrix<float, axis::key, axis::dim>(random, {keys, dims}), any rank and storage type.
template <class T, class... Axes>
[[nodiscard]] tensor<T, Axes...> random_matrix(generator& random,
                                               std::array<index_t, sizeof...(Axes)> extents,
                                               spread kind = spread::normal) {
    tensor<T, Axes...> result(extents);
    for_each_index(extents, [&](auto const& indices) {
        index_t const channel = indices.back();
        index_t const row = indices.size() > 1 ? indices[indices.size() - 2] : 0;
        double value = kind == spread::uniform ? random.uniform() : random.normal();
        if (kind == spread::outlier_channels && channel % 16 == 3) {
            value *= 30.0;
        }
        if (kind == spread::with_zeros && (random.chance(1.0 / 3.0) || row % 5 == 4)) {
            value = 0.0;
        }
        at(result.view(), indices) = T(static_cast<float>(value));
    });
    return result;
}

/// Integers from -limit to limit, both included; `zeros` is the share of zeros beyond chance.
template <class T, class... Axes>
[[nodiscard]] tensor<T, Axes...> random_codes(generator& random,
                                              std::array<index_t, sizeof...(Axes)> extents,
                                              int limit, double zeros = 0.0) {
    tensor<T, Axes...> result(extents);
    for_each_index(extents, [&](auto const& indices) {
        int const value = random.integer(-limit, limit);
        at(result.view(), indices) = static_cast<T>(random.chance(zeros) ? 0 : value);
    });
    return result;
}

/// The same numbers in another storage type, each rounded to it.
template <class To, class From, class... Axes>
[[nodiscard]] tensor<To, Axes...> converted(view<From, Axes...> from) {
    tensor<To, Axes...> result(from.extents());
    for_each_index(from.extents(), [&](auto const& indices) {
        at(result.view(), indices) = To(static_cast<float>(at(from, indices)));
    });
    return result;
}

// --- rows of predicted scores --------------------------------------------------------------------

/// Shape of a row. Magnitudes stay below 2^20, within half the range of every score type.
enum class row_shape {
    spread,     ///< normal, the big ones anywhere
    planted,    ///< small noise, one key in 16 far above it
    clustered,  ///< small noise, two neighbourhoods far above it
    constant,   ///< one value: only the index decides
    tied,       ///< four values, so most comparisons tie
    ascending,  ///< best last
    descending, ///< best first
    extreme     ///< +-2^20, zero and neighbours of them
};
inline constexpr std::array all_row_shapes{
    row_shape::spread, row_shape::planted,   row_shape::clustered,  row_shape::constant,
    row_shape::tied,   row_shape::ascending, row_shape::descending, row_shape::extreme};

/// One row of integer-valued scores, [key].
template <class Score = std::int32_t>
[[nodiscard]] std::vector<Score> random_scores(generator& random, index_t keys, row_shape shape) {
    std::vector<Score> row(static_cast<std::size_t>(keys));
    auto const noise = [&] { return std::nearbyint(random.normal(1000.0)); };
    index_t const width = std::max<index_t>(1, keys / 16);
    index_t const first = random.integer<index_t>(0, keys);
    index_t const second = random.integer<index_t>(0, keys);
    double const level = noise();
    for (index_t k = 0; k < keys; ++k) {
        double value = 0.0;
        switch (shape) {
        case row_shape::spread: value = 20.0 * noise(); break;
        case row_shape::planted:
            value = noise() + (random.chance(1.0 / 16.0) ? 50000.0 : 0.0);
            break;
        case row_shape::clustered: {
            bool const near =
                (k >= first && k < first + width) || (k >= second && k < second + width);
            value = noise() + (near ? 50000.0 : 0.0);
            break;
        }
        case row_shape::constant: value = level; break;
        case row_shape::tied: value = static_cast<double>(random.integer(-2, 1)); break;
        case row_shape::ascending: value = static_cast<double>(3 * k); break;
        case row_shape::descending: value = static_cast<double>(-3 * k); break;
        case row_shape::extreme:
            value = static_cast<double>(random.integer(-1, 1)) * 0x1p20 +
                    static_cast<double>(random.integer(-1, 1));
            break;
        }
        row[static_cast<std::size_t>(k)] = static_cast<Score>(std::clamp(value, -0x1p20, 0x1p20));
    }
    return row;
}

// --- strides -------------------------------------------------------------------------------------

/// How a copy lies in memory.
enum class layout {
    dense,      ///< C order, nothing between
    padded,     ///< C order, three elements after every row
    spaced,     ///< every second element
    transposed, ///< first axis fastest
    reversed,   ///< C order, every stride negative
    mixed       ///< axes in random order, random gaps, random signs
};
inline constexpr std::array all_layouts{layout::dense,      layout::padded,   layout::spaced,
                                        layout::transposed, layout::reversed, layout::mixed};

/// Owns a copy of a view in another layout; what lies between is poison (NaN, or the lowest).
template <class T, class... Axes>
class strided_copy {
public:
    static constexpr std::size_t rank = sizeof...(Axes);

    strided_copy(generator& random, view<T const, Axes...> from, layout kind) {
        std::array<std::size_t, rank> order{}; // fastest last
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (kind == layout::transposed) {
            std::ranges::reverse(order);
        }
        if (kind == layout::mixed) {
            for (std::size_t i = rank; i > 1; --i) {
                std::swap(order[i - 1], order[random.integer<std::size_t>(0, i - 1)]);
            }
        }
        std::array<index_t, rank> strides{};
        index_t step = kind == layout::spaced  ? 2
                       : kind == layout::mixed ? random.integer<index_t>(1, 3)
                                               : 1;
        index_t origin = 0;
        for (std::size_t i = rank; i-- > 0;) {
            std::size_t const axis = order[i];
            index_t const extent = from.extents()[axis];
            bool const backwards =
                kind == layout::reversed || (kind == layout::mixed && random.chance(0.5));
            strides[axis] = backwards ? -step : step;
            origin += backwards && extent > 0 ? (extent - 1) * step : 0;
            step *= std::max<index_t>(extent, 1);
            step += kind == layout::padded && i + 1 == rank ? 3
                    : kind == layout::mixed                 ? random.integer<index_t>(0, 4)
                                                            : 0;
        }
        storage_.assign(static_cast<std::size_t>(step), poison());
        view_ = sofattn::view<T, Axes...>(storage_.data() + origin, from.extents(), strides);
        for_each_index(from.extents(),
                       [&](auto const& indices) { at(view_, indices) = at(from, indices); });
    }
    strided_copy(strided_copy&&) noexcept = default; // the vector keeps its buffer
    strided_copy(strided_copy const&) = delete;
    strided_copy& operator=(strided_copy&&) = delete;
    strided_copy& operator=(strided_copy const&) = delete;
    ~strided_copy() = default;

    [[nodiscard]] sofattn::view<T, Axes...> view() noexcept { return view_; }
    [[nodiscard]] sofattn::view<T const, Axes...> cview() const noexcept { return view_; }

private:
    static T poison() noexcept {
        if constexpr (std::is_integral_v<T>) {
            return std::numeric_limits<T>::lowest();
        } else {
            return T(std::numeric_limits<float>::quiet_NaN());
        }
    }

    std::vector<T> storage_;
    sofattn::view<T, Axes...> view_;
};

/// strided(random, values.view(), layout::reversed)
template <class T, class... Axes>
[[nodiscard]] strided_copy<std::remove_const_t<T>, Axes...>
strided(generator& random, view<T, Axes...> from, layout kind) {
    return strided_copy<std::remove_const_t<T>, Axes...>(random, from, kind);
}

} // namespace sofattn::test
