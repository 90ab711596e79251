// SPDX-License-Identifier: MIT
// What prefill by pages reads of an index, as numbers that can be compared.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace sofattn::test {

using index_bits = std::vector<std::uint32_t>;

inline void put(index_bits& to, void const* from, index_t words) {
    auto const before = to.size();
    to.resize(before + static_cast<std::size_t>(words));
    std::memcpy(to.data() + before, from, static_cast<std::size_t>(words) * 4);
}

/// All that prefill reads: centre, steps and codes of sketches, sums, and the places of the keys that it has.
template <class Index>
index_bits index_content(Index const& index) {
    index_bits all{static_cast<std::uint32_t>(index.keys()),
                   static_cast<std::uint32_t>(index.dim()),
                   static_cast<std::uint32_t>(index.value_dim()),
                   static_cast<std::uint32_t>(index.sketches().calibrated_by())};
    auto const& sketches = index.sketches();
    put(all, sketches.centre(), sketches.dim());
    for (std::size_t i = 0; i < dlzs::sketch_parts; ++i) {
        auto const part = static_cast<dlzs::sketch_part>(i);
        put(all, sketches.units(part), sketches.dim());
        auto const& panels = sketches.panels(part);
        for (index_t p = 0; p < panels.pages(); ++p) { // whole ones: behind the last page are zeros
            put(all, panels.page(p), panels.page_bytes() / 4);
        }
    }
    for (index_t s = 0; s < index.value_sums().segments(); ++s) {
        put(all, index.value_sums().of(s), index.value_dim());
    }
    auto const& pages = index.pages();
    using pages_type = std::remove_cvref_t<decltype(pages)>;
    for (index_t k = 0; k < index.keys(); ++k) {
        auto const* const of_keys = pages.keys(k / 16);
        for (index_t s = 0; s < pages.steps(); ++s) {
            put(all, of_keys + s * 16 + k % 16, 1);
        }
        using element = typename pages_type::element;
        auto const* const of_values = reinterpret_cast<element const*>(pages.values(k / 16));
        for (index_t d = 0; d < index.value_dim(); ++d) {
            constexpr index_t width = exec::vector_width;
            index_t const step = k % 16 / pages_type::each;
            element const x =
                of_values[((d / width * pages_type::value_steps + step) * width + d % width) *
                              pages_type::each +
                          k % pages_type::each];
            float const real = to_float(x);
            put(all, &real, 1);
        }
    }
    return all;
}

} // namespace sofattn::test
