// SPDX-License-Identifier: MIT
// Sketches of pages read back, and their products by plain arithmetic.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/exec/int8_dot.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sofattn::test {

[[nodiscard]] inline int sketch_code(dlzs::page_sketches const& sketches, dlzs::sketch_part part,
                                     index_t page, index_t d) {
    auto const& panels = sketches.panels(part);
    std::uint8_t const byte = panels.page(page / 16)[(d / 4 * 16 + page % 16) * 4 + d % 4];
    return exec::dot_bias != 0 ? static_cast<int>(byte) - exec::dot_bias
                               : static_cast<int>(static_cast<std::int8_t>(byte));
}

/// Calibrated on as many keys, with the same steps.
[[nodiscard]] inline bool same_steps(dlzs::page_sketches const& a, dlzs::page_sketches const& b) {
    bool same = a.calibrated_by() == b.calibrated_by();
    for (std::size_t i = 0; i < dlzs::sketch_parts; ++i) {
        auto const part = static_cast<dlzs::sketch_part>(i);
        same = same && std::equal(a.units(part), a.units(part) + a.dim(), b.units(part));
    }
    return same;
}

[[nodiscard]] inline std::vector<int> all_codes(dlzs::page_sketches const& sketches) {
    std::vector<int> codes;
    for (std::size_t i = 0; i < dlzs::sketch_parts; ++i) {
        for (index_t p = 0; p < sketches.pages(); ++p) {
            for (index_t d = 0; d < sketches.dim(); ++d) {
                codes.push_back(sketch_code(sketches, static_cast<dlzs::sketch_part>(i), p, d));
            }
        }
    }
    return codes;
}

/// Positions of all pages for a query in octaves per unit of the key: of the others by mean and variance, or of
/// the outlier alone, whichever is higher.
[[nodiscard]] inline std::vector<std::int32_t> sketch_positions(dlzs::page_sketches const& sketches,
                                                                std::vector<float> query) {
    auto const width = static_cast<std::size_t>(ceil_div<index_t>(sketches.dim(), 16) * 16);
    auto const steps = width / 4;
    query.resize(width);
    std::vector<std::int32_t> packed(dlzs::sketch_parts * steps);
    std::vector<float> real(width);
    auto const asked = dlzs::code_sketch_query(sketches, query.data(), 256.0f, real.data(),
                                               packed.data(), static_cast<index_t>(steps));
    std::vector<std::int32_t> positions;
    for (index_t p = 0; p < sketches.pages(); ++p) {
        std::array<float, dlzs::sketch_parts> x{};
        for (std::size_t i = 0; i < x.size(); ++i) {
            auto const* const codes =
                reinterpret_cast<std::int8_t const*>(packed.data() + i * steps);
            std::int32_t score = 0;
            for (index_t d = 0; d < sketches.dim(); ++d) {
                score += codes[d] * sketch_code(sketches, static_cast<dlzs::sketch_part>(i), p, d);
            }
            x[i] = static_cast<float>(score) * asked.positions[i];
        }
        auto const whole = [](float value, float low, float high) {
            return static_cast<std::int32_t>(std::nearbyint(std::clamp(value, low, high)));
        };
        std::int32_t const others =
            whole(x[0], -64.0f * 256.0f, 64.0f * 256.0f - 1.0f) + whole(x[1], 0.0f, 64.0f * 256.0f);
        std::int32_t const outlier = whole(x[2], -60.0f * 256.0f, 128.0f * 256.0f - 1.0f) - 4 * 256;
        positions.push_back(std::max(others, outlier));
    }
    return positions;
}

} // namespace sofattn::test
