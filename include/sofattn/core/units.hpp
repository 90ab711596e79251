// SPDX-License-Identifier: MIT
// Quantities with their unit in the type, so that cycles are never added to picojoules.
#pragma once

#include <compare>
#include <cstdint>

namespace sofattn {

/// A number of `Unit`s held as `Rep`; convert explicitly, with the unit's name in the code.
template <class Unit, class Rep>
class quantity {
public:
    using unit = Unit;
    using rep = Rep;

    constexpr quantity() noexcept = default;
    explicit constexpr quantity(Rep count) noexcept : count_(count) {}

    /// The bare number, in `Unit`s.
    [[nodiscard]] constexpr Rep count() const noexcept { return count_; }

    constexpr quantity& operator+=(quantity other) noexcept {
        count_ += other.count_;
        return *this;
    }
    constexpr quantity& operator-=(quantity other) noexcept {
        count_ -= other.count_;
        return *this;
    }
    friend constexpr quantity operator+(quantity a, quantity b) noexcept { return a += b; }
    friend constexpr quantity operator-(quantity a, quantity b) noexcept { return a -= b; }
    friend constexpr quantity operator*(quantity a, Rep factor) noexcept {
        return quantity(a.count_ * factor);
    }
    friend constexpr quantity operator*(Rep factor, quantity a) noexcept { return a * factor; }
    /// How many times `b` goes into `a`: a plain number.
    friend constexpr Rep operator/(quantity a, quantity b) noexcept { return a.count_ / b.count_; }
    friend constexpr auto operator<=>(quantity, quantity) noexcept = default;

private:
    Rep count_ = 0;
};

namespace unit {
struct byte {
    static constexpr char const* name = "bytes";
};
struct cycle {
    static constexpr char const* name = "cycles";
};
struct picojoule {
    static constexpr char const* name = "picojoules";
};
} // namespace unit

using bytes = quantity<unit::byte, std::uint64_t>;
using cycles = quantity<unit::cycle, std::uint64_t>;
using picojoules = quantity<unit::picojoule, double>;

} // namespace sofattn
