// SPDX-License-Identifier: MIT
// A number that counts what is done with it: a stage run on it must declare the same counts.
#pragma once

#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/ledger.hpp>

#include <cmath>
#include <compare>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace sofattn::test {

/// What watched numbers did on this thread.
struct tally {
    std::uint64_t adds = 0;       ///< binary + and -
    std::uint64_t multiplies = 0; ///< *
    std::uint64_t shifts = 0;     ///< << and >>
    std::uint64_t compares = 0;   ///< <, >, <=, >=, <=>
    std::uint64_t exps = 0;
    std::uint64_t divides = 0;   ///< /
    std::uint64_t negations = 0; ///< unary -

    friend bool operator==(tally const&, tally const&) = default;
};

/// Of this thread, since it was last set to {}.
inline thread_local tally seen;

/// What `work` makes watched numbers do.
template <std::invocable Work>
[[nodiscard]] tally watch(Work work) {
    tally const before = seen;
    seen = {};
    work();
    tally const done = seen;
    seen = before;
    return done;
}

/// Plain arithmetic, as opposed to watched.
template <class T>
concept arithmetic = std::is_arithmetic_v<T> && !std::same_as<T, bool>;

/// Computes as T does, and counts. Making, copying and reading one is free. Conversions are
/// explicit and there is no ==, so that no arithmetic slips through unseen.
template <class T>
class watched {
public:
    using value_type = T;

    watched() noexcept = default;
    explicit watched(T value) noexcept : value_(value) {}
    template <arithmetic U>
        requires(!std::same_as<U, T>)
    explicit watched(U value) noexcept : value_(static_cast<T>(value)) {}

    explicit operator T() const noexcept { return value_; }
    template <arithmetic U>
        requires(!std::same_as<U, T>)
    explicit operator U() const noexcept { return static_cast<U>(value_); }

    friend watched operator+(watched a, watched b) noexcept {
        ++seen.adds;
        return watched(static_cast<T>(a.value_ + b.value_));
    }
    friend watched operator-(watched a, watched b) noexcept {
        ++seen.adds;
        return watched(static_cast<T>(a.value_ - b.value_));
    }
    friend watched operator*(watched a, watched b) noexcept {
        ++seen.multiplies;
        return watched(static_cast<T>(a.value_ * b.value_));
    }
    friend watched operator/(watched a, watched b) noexcept {
        ++seen.divides;
        return watched(static_cast<T>(a.value_ / b.value_));
    }
    friend watched operator-(watched a) noexcept {
        ++seen.negations;
        return watched(static_cast<T>(-a.value_));
    }
    template <std::integral Distance>
        requires std::integral<T>
    friend watched operator<<(watched a, watched<Distance> distance) noexcept {
        ++seen.shifts;
        return watched(static_cast<T>(a.value_ << static_cast<Distance>(distance)));
    }
    template <std::integral Distance>
        requires std::integral<T>
    friend watched operator>>(watched a, watched<Distance> distance) noexcept {
        ++seen.shifts;
        return watched(static_cast<T>(a.value_ >> static_cast<Distance>(distance)));
    }

    /// <, >, <= and >= are rewritten to one of these.
    friend auto operator<=>(watched a, watched b) noexcept {
        ++seen.compares;
        return a.value_ <=> b.value_;
    }
    friend watched exp(watched a) noexcept requires std::floating_point<T> {
        ++seen.exps;
        return watched(std::exp(a.value_));
    }

private:
    T value_{};
};

/// One lane of watched numbers.
using watched_lanes = exec::scalar_lanes<1, watched>;
/// Gives a ledger and a tally of the same run, which must agree.
using watched_executor = exec::executor<watched_lanes, probe::ledger, double>;

static_assert(exec::lanes<watched_lanes> && exec::executor_like<watched_executor>);

} // namespace sofattn::test
