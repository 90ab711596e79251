// SPDX-License-Identifier: MIT
// What selectors need on vector registers, made once for the longest run.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/row_cut.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sofattn::sads {

template <class Score>
struct register_buffers {
    register_buffers() = default;
    explicit register_buffers(index_t keys)
        : scores(places(keys)), keys_of(places(keys)), collected(places(keys)), costs(places(keys)),
          positions(places(keys)), spare(places(keys)) {}

    std::vector<Score> scores;           ///< of competing keys, where they do not lie together
    std::vector<key_id> keys_of;         ///< theirs, where they do not follow each other
    std::vector<key_id> collected;       ///< kept ones
    std::vector<std::int32_t> costs;     ///< of dropping
    std::vector<std::int16_t> positions; ///< of scores
    std::vector<ranked<Score>> spare;    ///< for sorting
    find_cut cut;

private:
    /// Some registers more, which may be written beyond the last key.
    [[nodiscard]] static std::size_t places(index_t keys) noexcept {
        return static_cast<std::size_t>(keys + 2 * exec::short_width);
    }
};

} // namespace sofattn::sads
