// SPDX-License-Identifier: MIT
// Descriptors over random layers, and the memory that they point to.
#pragma once

#include "attention/decode_case.hpp"
#include "engine/carried_out.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/page_codes.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::test {

template <class T>
inline constexpr engine::dtype dtype_of = std::is_same_v<T, float>  ? engine::dtype::f32
                                          : std::is_same_v<T, half> ? engine::dtype::f16
                                                                    : engine::dtype::bf16;

template <class T, class... Axes>
[[nodiscard]] engine::operand operand_of(view<T const, Axes...> of) {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
    return {of.data(), dtype_of<T>, of.strides()[0] * bytes, of.strides()[1] * bytes};
}

/// A layer, its output, its row sums, and a dense causal descriptor of them.
template <class T = float>
struct engine_case {
    engine_case(generator& random, decode_shape const& s)
        : layer(random, s), output({s.kv_heads * s.group, s.queries, s.value_dim}),
          max(static_cast<std::size_t>(s.kv_heads * s.group * s.queries)), sum(max.size()),
          dropped(max.size()) {
        desc.heads = s.kv_heads * s.group;
        desc.kv_heads = s.kv_heads;
        desc.queries = s.queries;
        desc.keys = s.keys;
        desc.qk_dim = s.dim;
        desc.v_dim = s.value_dim;
        desc.query = operand_of(layer.q.cview());
        desc.key = operand_of(layer.k.cview());
        desc.value = operand_of(layer.v.cview());
        auto const out = output.view();
        desc.output = {out.data(), out.strides()[0] * 4, out.strides()[1] * 4};
        desc.mask = s.causal ? engine::mask_kind::causal : engine::mask_kind::none;
        clear();
    }
    engine_case(engine_case const&) = delete; // the descriptor points into it

    /// What nobody writes stays.
    void clear() {
        for_each_index(output.view().extents(),
                       [&](auto const& i) { at(output.view(), i) = untouched; });
        max.assign(max.size(), untouched);
        sum.assign(sum.size(), untouched);
        dropped.assign(sum.size(), untouched);
    }
    [[nodiscard]] bool is_untouched() const {
        bool same = true;
        for_each_index(output.cview().extents(),
                       [&](auto const& i) { same = same && at(output.cview(), i) == untouched; });
        for (std::size_t i = 0; i < max.size(); ++i) {
            same = same && max[i] == untouched && sum[i] == untouched && dropped[i] == untouched;
        }
        return same;
    }

    /// The codes that best_keys needs.
    void index() {
        codes.clear();
        for (index_t h = 0; h < desc.kv_heads; ++h) {
            auto const keys = layer.k.cview().template slice<axis::kv_head>(h);
            codes.emplace_back(dlzs::key_calibration<dlzs::centred_int4>::of(keys));
            codes.back().append(keys);
        }
        desc.codes = codes.data();
    }
    /// What sparse prefill needs.
    void prefill_index() {
        prefill.clear();
        for (index_t h = 0; h < desc.kv_heads; ++h) {
            prefill.emplace_back(layer.k.cview().template slice<axis::kv_head>(h),
                                 layer.v.cview().template slice<axis::kv_head>(h));
        }
        desc.prefill = prefill.data();
    }

    /// What prefill of pages needs, for desc.products.
    void page_index() {
        pages = desc.products == dense_products::bf16 ? pages_for<dense_products::bf16>()
                                                      : pages_for<dense_products::f32>();
        desc.prefill_pages = &pages;
    }

    static constexpr float untouched = -12345.5f;

    decode_case<T> layer;
    decode_output output;
    std::vector<float> max;
    std::vector<float> sum;
    std::vector<float> dropped;
    std::vector<engine::key_codes> codes;
    std::vector<engine::prefill_codes> prefill;
    engine::page_codes pages;
    engine::attention_desc desc;

private:
    template <dense_products Products>
    [[nodiscard]] engine::page_codes pages_for() const {
        std::vector<engine::page_codes::index_type<Products>> made;
        for (index_t h = 0; h < desc.kv_heads; ++h) {
            made.emplace_back(layer.k.cview().template slice<axis::kv_head>(h),
                              layer.v.cview().template slice<axis::kv_head>(h));
        }
        return engine::page_codes::of<Products>(std::move(made));
    }
};

} // namespace sofattn::test
