// SPDX-License-Identifier: MIT
// What a run tells beside the output: totals, and kept keys to who listens.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>

#include <cstdint>
#include <span>

namespace sofattn {

/// What a run tells beside the output.
struct attention_result {
    std::uint64_t visible_pairs = 0; ///< (query, key) pairs under the mask, over all query heads
    std::uint64_t kept_pairs = 0;    ///< pairs attended
    std::uint64_t key_loads = 0;     ///< key vectors the schedule loaded
    std::uint64_t value_loads = 0;   ///< value vectors; as many, unless scores are reused
    std::uint64_t generated = 0;     ///< keys generated on demand, over all KV heads

    attention_result& operator+=(attention_result const& other) noexcept {
        visible_pairs += other.visible_pairs;
        kept_pairs += other.kept_pairs;
        key_loads += other.key_loads;
        value_loads += other.value_loads;
        generated += other.generated;
        return *this;
    }

    [[nodiscard]] double kept_share() const noexcept {
        return visible_pairs == 0
                   ? 0.0
                   : static_cast<double>(kept_pairs) / static_cast<double>(visible_pairs);
    }
};

/// Called with (query head, query, kept keys of one run); the default listens to nothing.
struct ignore_kept {
    template <class Score>
    constexpr void operator()(index_t, index_t, std::span<ranked<Score> const>) const noexcept {}
};

} // namespace sofattn
