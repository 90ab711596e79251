// SPDX-License-Identifier: MIT
#include "tune/kernels.hpp"

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/dse/random.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace sofattn::tune {

namespace {

using sufa::block_tiles;

/// A layer of one KV head or several, of numbers that are as if normal: sums of uniform ones.
template <class T>
struct layer {
    tensor<T, axis::head, axis::query, axis::dim> queries;
    tensor<T, axis::kv_head, axis::key, axis::dim> keys;
    tensor<T, axis::kv_head, axis::key, axis::value_dim> values;
    tensor<float, axis::head, axis::query, axis::value_dim> output;

    layer(index_t heads, index_t kv_heads, index_t queries_count, index_t keys_count, index_t dim)
        : queries({heads, queries_count, dim}), keys({kv_heads, keys_count, dim}),
          values({kv_heads, keys_count, dim}), output({heads, queries_count, dim}) {
        dse::random_stream random(1, 0);
        auto const fill = [&](auto const& view) {
            auto const [a, b, c] = view.extents();
            for (index_t i = 0; i < a * b * c; ++i) {
                double sum = -2;
                for (int n = 0; n < 4; ++n) {
                    sum += random.unit();
                }
                view.data()[i] = T(static_cast<float>(sum * std::sqrt(3.0))); // variance 1
            }
        };
        fill(queries.view());
        fill(keys.view());
        fill(values.view());
    }
    [[nodiscard]] problem<T> given() const {
        return {queries.cview(), keys.cview(), values.cview(), /*causal=*/true};
    }
};

/// Prefill of the last queries of a group of heads: as many rows as the largest block has from one
/// thread's share, so that no size is cut short.
template <dense_products Products, class T>
class prefill {
public:
    explicit prefill(index_t dim)
        : data_(group, 1, queries, keys, dim),
          memory_(dense_workspace_bytes<Products>(
              data_.given().shape(), 1, {block_tiles::keys_most, block_tiles::rows_most})) {}

    void operator()(block_tiles tiles) {
        dense_attention<Products>(data_.given(), data_.output.view(), memory_, exec::serial(), {},
                                  tiles);
    }

private:
    static constexpr index_t group = 4;
    static constexpr index_t queries = block_tiles::rows_most;
    static constexpr index_t keys = 2048;

    layer<T> data_;
    std::vector<std::byte> memory_;
};

/// A token after 16384 others, of 32 query heads that share 8 KV heads.
class decode {
public:
    static constexpr index_t kv_heads = 8;
    static constexpr index_t keys = 16384;

    explicit decode(index_t dim)
        : data_(4 * kv_heads, kv_heads, 1, keys, dim),
          memory_(decode_workspace_bytes(data_.given().shape(), 1, {decode_parts::step})) {}

    void operator()(decode_parts parts) {
        dense_decode(data_.given(), data_.output.view(), memory_, exec::serial(), {}, parts);
    }

private:
    layer<half> data_;
    std::vector<std::byte> memory_;
};

/// Made at the first call.
template <class Work>
class made_late {
public:
    explicit made_late(index_t dim) : dim_(dim) {}
    Work& operator*() {
        if (!work_) {
            work_.emplace(dim_);
        }
        return *work_;
    }

private:
    index_t dim_;
    std::optional<Work> work_;
};

constexpr index_t rows_step = 96;

dse::search_space tiles_space() {
    return dse::search_space(
        {{"keys", block_tiles::keys_least, block_tiles::keys_most, block_tiles::keys_step, {}},
         {"rows", rows_step, block_tiles::rows_most, rows_step, {}}});
}

template <dense_products Products, class T>
kernel prefill_kernel(char const* name, index_t dim, block_tiles sizes::*place) {
    dse::search_space const space = tiles_space();
    auto const tiles_of = [space](dse::point const& p) {
        return block_tiles{space.value(p, 0), space.value(p, 1)};
    };
    constexpr block_tiles usual = default_tiles<Products>;
    static_assert(usual.rows % rows_step == 0);
    auto const work = std::make_shared<made_late<prefill<Products, T>>>(dim);
    return {{name,
             space,
             {(usual.keys - block_tiles::keys_least) / block_tiles::keys_step,
              usual.rows / rows_step - 1},
             [work, tiles_of](dse::point const& p) { (**work)(tiles_of(p)); }},
            [tiles_of, place](dse::point const& p, sizes& to) { to.*place = tiles_of(p); }};
}

/// One thread gets faster with longer parts; others would be idle. A step has four parts for each.
kernel decode_kernel(index_t dim, index_t threads) {
    auto const log2_of = [](index_t n) {
        return static_cast<index_t>(std::bit_width(static_cast<std::size_t>(n))) - 1;
    };
    constexpr index_t least = 8; // 2^8 keys
    constexpr index_t usual = decode_parts{}.keys_least;
    static_assert(std::has_single_bit(static_cast<std::size_t>(usual)));
    index_t const fitting =
        std::clamp(decode::kv_heads * decode::keys / (4 * threads), usual, decode::keys);
    index_t const most = log2_of(fitting);
    dse::search_space const space({{"keys_least_log2", least, most, 1, {}}});
    auto const parts_of = [space](dse::point const& p) {
        return decode_parts{index_t{1} << space.value(p, 0)};
    };
    auto const work = std::make_shared<made_late<decode>>(dim);
    return {{"dense_decode",
             space,
             {log2_of(usual) - least},
             [work, parts_of](dse::point const& p) { (**work)(parts_of(p)); }},
            [parts_of](dse::point const& p, sizes& to) { to.decode = parts_of(p); }};
}

} // namespace

std::vector<kernel> kernels(index_t dim, index_t threads) {
    std::vector<kernel> all{
        prefill_kernel<dense_products::f32, float>("dense_f32", dim, &sizes::f32)};
    if constexpr (exec::has_bf16_dot) {
        all.push_back(
            prefill_kernel<dense_products::bf16, bfloat16>("dense_bf16", dim, &sizes::bf16));
    }
    all.push_back(prefill_kernel<dense_products::int8, float>("dense_int8", dim, &sizes::int8));
    all.push_back(decode_kernel(dim, threads));
    return all;
}

} // namespace sofattn::tune
