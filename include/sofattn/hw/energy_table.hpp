// SPDX-License-Identifier: MIT
// What activities, leakage and area cost: a named table, each entry with its source.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/core/units.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/kinds.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sofattn::hw {

struct activity_price {
    double picojoules = 0;
    std::string_view source{};

    friend constexpr bool operator==(activity_price const&, activity_price const&) = default;
};
/// Of one unit: an element, a core, a byte of SRAM.
struct part_price {
    double square_micrometres = 0;
    double static_microwatts = 0;
    std::string_view source{};

    friend constexpr bool operator==(part_price const&, part_price const&) = default;
};

/// Results are only meant beside their table, so a report carries the one it used. Prices hold at the
/// table's node and supply; `prices_for` (hw/prices.hpp) carries them to a machine's.
struct energy_table {
    std::string_view name{};
    std::string_view doc{};
    double node_nanometres = 0;
    double supply_volts = 0;
    std::array<activity_price, activity_count> activities{};
    std::array<part_price, part_count> parts{};

    [[nodiscard]] constexpr activity_price const& of(activity a) const noexcept {
        return activities[static_cast<std::size_t>(a)];
    }
    [[nodiscard]] constexpr part_price const& of(part p) const noexcept {
        return parts[static_cast<std::size_t>(p)];
    }
    constexpr energy_table& with(activity a, double picojoules, std::string_view source) noexcept {
        activities[static_cast<std::size_t>(a)] = {picojoules, source};
        return *this;
    }
    constexpr energy_table& with(part p, double square_micrometres, double static_microwatts,
                                 std::string_view source) noexcept {
        parts[static_cast<std::size_t>(p)] = {square_micrometres, static_microwatts, source};
        return *this;
    }

    friend constexpr bool operator==(energy_table const&, energy_table const&) = default;
};

/// How many units of each kind a machine has.
[[nodiscard]] inline std::array<std::uint64_t, part_count> part_counts(machine const& m) noexcept {
    std::array<std::uint64_t, part_count> counts{};
    auto const set = [&](part p, index_t n) {
        counts[static_cast<std::size_t>(p)] = static_cast<std::uint64_t>(n);
    };
    index_t const elements = m.prediction.array_rows_count * m.prediction.array_columns_count;
    switch (kind_of(m.prediction)) {
    case predictor_kind::dlzs:
    case predictor_kind::two_sided_lz:
        set(part::shift_element, elements);
        set(part::lz_encoder, m.prediction.lz_encoders_count);
        break;
    case predictor_kind::multiply:
    case predictor_kind::multi_round:
        set(m.prediction.operand_bits <= 4   ? part::predictor_mac_4
            : m.prediction.operand_bits <= 8 ? part::predictor_mac_8
                                             : part::predictor_mac_16,
            elements);
        break;
    case predictor_kind::history:
    case predictor_kind::none: break;
    }
    switch (kind_of(m.selection)) {
    case selector_kind::sads:
    case selector_kind::full_sort: set(part::sort_core, m.selection.cores_count); break;
    case selector_kind::mean_threshold:
    case selector_kind::quick_select:
    case selector_kind::threshold:
        set(part::compare_lane, m.selection.cores_count * m.selection.new_inputs_count);
        break;
    case selector_kind::none: break;
    }
    set(part::kv_mac, m.generation.array_rows_count * m.generation.array_columns_count);
    set(part::attention_mac, 2 * m.attention.rows_count * m.attention.keys_per_row_count);
    set(part::attention_row, m.attention.rows_count);
    set(part::exp_unit, m.attention.exp_units_count);
    set(part::divider, m.attention.dividers_count);
    set(part::token_byte, m.buffers.token.capacity_bytes);
    set(part::weight_byte, m.buffers.weight.capacity_bytes);
    set(part::temporary_byte, m.buffers.temporary.capacity_bytes);
    set(part::scheduler, 1);
    return counts;
}

/// One number per row of Tables III and IV.
using per_block = std::array<double, block_count>;

[[nodiscard]] constexpr double sum(per_block const& of) noexcept {
    double total = 0;
    for (double const one : of) {
        total += one;
    }
    return total;
}
/// Of the core: the rows of Table III.
[[nodiscard]] constexpr double sum_on_chip(per_block const& of) noexcept {
    double total = 0;
    for (std::size_t b = 0; b < block_count; ++b) {
        total += is_on_chip(static_cast<block>(b)) ? of[b] : 0.0;
    }
    return total;
}

/// Energy of events, in picojoules.
[[nodiscard]] constexpr per_block dynamic_picojoules(energy_table const& prices,
                                                     activity_counts const& done) noexcept {
    per_block found{};
    for (std::size_t a = 0; a < activity_count; ++a) {
        auto const which = static_cast<activity>(a);
        found[static_cast<std::size_t>(block_of(which))] +=
            static_cast<double>(done[which]) * prices.of(which).picojoules;
    }
    return found;
}

/// Power that flows whatever is done, in microwatts.
[[nodiscard]] inline per_block static_microwatts(energy_table const& prices, machine const& m) {
    per_block found{};
    auto const counts = part_counts(m);
    for (std::size_t p = 0; p < part_count; ++p) {
        auto const which = static_cast<part>(p);
        found[static_cast<std::size_t>(block_of(which))] +=
            static_cast<double>(counts[p]) * prices.of(which).static_microwatts;
    }
    return found;
}

[[nodiscard]] inline per_block area_square_micrometres(energy_table const& prices,
                                                       machine const& m) {
    per_block found{};
    auto const counts = part_counts(m);
    for (std::size_t p = 0; p < part_count; ++p) {
        auto const which = static_cast<part>(p);
        found[static_cast<std::size_t>(block_of(which))] +=
            static_cast<double>(counts[p]) * prices.of(which).square_micrometres;
    }
    return found;
}

} // namespace sofattn::hw
