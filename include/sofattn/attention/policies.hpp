// SPDX-License-Identifier: MIT
// What the pipeline asks of selectors, attenders and schedules.
#pragma once

#include <sofattn/rass/schedule.hpp>

#include <concepts>
#include <span>

namespace sofattn {

template <class S>
concept selector_policy = requires {
    { S::name } -> std::convertible_to<char const*>;
    { S::tile_ready } -> std::convertible_to<bool>;
    { S::sorted } -> std::convertible_to<bool>;
    S{};
};

/// Whether a selector reads weights and not only order: it needs calibrated logits.
template <class S>
inline constexpr bool weighs_scores = requires {
    requires S::weighs;
};

template <class A>
concept attender_policy = requires {
    { A::name } -> std::convertible_to<char const*>;
    { A::tile_ready } -> std::convertible_to<bool>;
    { A::from_back } -> std::convertible_to<bool>;
    A{};
};

template <class S>
concept schedule_policy = requires(std::span<rass::wanted_key const> keys,
                                   rass::schedule_scratch scratch, void (*on_load)(rass::load)) {
    { S::name } -> std::convertible_to<char const*>;
    { S{}(keys, scratch, on_load) } -> std::same_as<rass::totals>;
};

/// Whether a schedule loads every wanted key once: loads can be counted without it.
template <class S>
inline constexpr bool loads_once = requires {
    requires S::loads_once;
};

} // namespace sofattn
