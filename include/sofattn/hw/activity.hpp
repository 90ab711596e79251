// SPDX-License-Identifier: MIT
// The closed lists of what a machine is charged for: blocks, activities and units.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sofattn::hw {

/// Rows of Tables III and IV.
enum class block {
    prediction,    ///< DLZS
    selection,     ///< SADS
    kv_generation, ///< exact K and V
    attention,     ///< SU-FA
    memory,        ///< the three SRAMs
    scheduler,     ///< RASS, controllers, FIFOs
    interface,     ///< the DRAM's physical interface
    dram
};
inline constexpr std::size_t block_count = 8;
/// The core: what Table III sums.
[[nodiscard]] constexpr bool is_on_chip(block b) noexcept { return b <= block::scheduler; }

/// One event that costs dynamic energy.
enum class activity {
    shift_add_8,  ///< 8-bit operand shifted by a code and accumulated
    shift_add_16, ///< 16-bit operand
    lz_encode,
    key_rotation,             ///< multiplication of RoPE on K^
    predictor_multiply_add_4, ///< predictors of other designs: narrower operand of 4 bits
    predictor_multiply_add_8,
    predictor_multiply_add_16,
    sort_pass,       ///< a core takes its new entries in, for one cycle
    select_compare,  ///< selectors of other designs: a score against a threshold or a pivot
    kv_multiply_add, ///< 16 bits
    multiply_add,    ///< 16 bits: Q.K or S.V
    row_cycle,       ///< a row at work for one cycle: line buffers, AP module, registers
    exp,
    divide,
    max_update, ///< AP mode 1 replaced a maximum
    token_read_bytes,
    token_write_bytes,
    weight_read_bytes,
    weight_write_bytes,
    temporary_read_bytes,
    temporary_write_bytes,
    key_issue, ///< RASS sends one key's ID to the fetcher
    interface_bits,
    dram_read_bits,
    dram_write_bits
};
inline constexpr std::size_t activity_count = 25;

/// What takes area and leaks.
enum class part {
    shift_element,
    predictor_mac_4, ///< predictors of other designs, by their narrower operand
    predictor_mac_8,
    predictor_mac_16,
    lz_encoder,
    sort_core,    ///< with its clipping unit
    compare_lane, ///< selectors of other designs: takes a score per cycle
    kv_mac,
    attention_mac,
    attention_row, ///< line buffers, AP module and registers of one row
    exp_unit,
    divider,
    token_byte,
    weight_byte,
    temporary_byte,
    scheduler
};
inline constexpr std::size_t part_count = 16;

namespace detail {
// clang-format off
inline constexpr std::array<std::string_view, block_count> block_names{
    "prediction", "selection", "kv_generation", "attention", "memory", "scheduler", "interface",
    "dram"};
inline constexpr std::array<std::string_view, activity_count> activity_names{
    "shift_add_8", "shift_add_16", "lz_encode", "key_rotation", "predictor_multiply_add_4",
    "predictor_multiply_add_8", "predictor_multiply_add_16", "sort_pass", "select_compare", "kv_multiply_add",
    "multiply_add", "row_cycle", "exp", "divide", "max_update", "token_read_bytes",
    "token_write_bytes", "weight_read_bytes", "weight_write_bytes", "temporary_read_bytes",
    "temporary_write_bytes", "key_issue", "interface_bits", "dram_read_bits", "dram_write_bits"};
inline constexpr std::array<std::string_view, part_count> part_names{
    "shift_element", "predictor_mac_4", "predictor_mac_8", "predictor_mac_16", "lz_encoder",
    "sort_core", "compare_lane", "kv_mac", "attention_mac", "attention_row",
    "exp_unit", "divider", "token_byte", "weight_byte", "temporary_byte", "scheduler"};
// clang-format on
} // namespace detail

static_assert(static_cast<std::size_t>(block::dram) + 1 == block_count);
static_assert(static_cast<std::size_t>(activity::dram_write_bits) + 1 == activity_count);
static_assert(static_cast<std::size_t>(part::scheduler) + 1 == part_count);

[[nodiscard]] constexpr std::string_view name(block b) noexcept {
    return detail::block_names[static_cast<std::size_t>(b)];
}
[[nodiscard]] constexpr std::string_view name(activity a) noexcept {
    return detail::activity_names[static_cast<std::size_t>(a)];
}
[[nodiscard]] constexpr std::string_view name(part p) noexcept {
    return detail::part_names[static_cast<std::size_t>(p)];
}

/// Who pays for an activity.
[[nodiscard]] constexpr block block_of(activity a) noexcept {
    return a <= activity::predictor_multiply_add_16 ? block::prediction
           : a <= activity::select_compare          ? block::selection
           : a == activity::kv_multiply_add         ? block::kv_generation
           : a <= activity::max_update              ? block::attention
           : a <= activity::temporary_write_bytes   ? block::memory
           : a == activity::key_issue               ? block::scheduler
           : a == activity::interface_bits          ? block::interface
                                                    : block::dram;
}
[[nodiscard]] constexpr block block_of(part p) noexcept {
    return p <= part::lz_encoder       ? block::prediction
           : p <= part::compare_lane   ? block::selection
           : p == part::kv_mac         ? block::kv_generation
           : p <= part::divider        ? block::attention
           : p <= part::temporary_byte ? block::memory
                                       : block::scheduler;
}

/// How often each activity happened. Two of them add, so that parts of a run make up the whole.
class activity_counts {
public:
    [[nodiscard]] constexpr std::uint64_t operator[](activity a) const noexcept {
        return counts_[static_cast<std::size_t>(a)];
    }
    constexpr void add(activity a, std::uint64_t count) noexcept {
        counts_[static_cast<std::size_t>(a)] += count;
    }
    constexpr activity_counts& operator+=(activity_counts const& other) noexcept {
        return add_times(other, 1);
    }
    /// The counts of `times` equal pieces of work.
    constexpr activity_counts& add_times(activity_counts const& other,
                                         std::uint64_t times) noexcept {
        for (std::size_t a = 0; a < activity_count; ++a) {
            counts_[a] += times * other.counts_[a];
        }
        return *this;
    }
    friend constexpr bool operator==(activity_counts const&,
                                     activity_counts const&) noexcept = default;

private:
    std::array<std::uint64_t, activity_count> counts_{};
};

} // namespace sofattn::hw
