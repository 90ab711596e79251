// SPDX-License-Identifier: MIT
// Ways to attend, by the names that the command line gives them.
#pragma once

#include "tune/sizes.hpp"
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/exec/parallel.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::lm {

/// (query, key) pairs of all query heads, rows from a first one on.
struct pair_counts {
    std::uint64_t visible = 0;
    std::uint64_t kept = 0;

    [[nodiscard]] double kept_share() const noexcept {
        return visible == 0 ? 0.0 : static_cast<double>(kept) / static_cast<double>(visible);
    }
    pair_counts& operator+=(pair_counts const& other) noexcept {
        visible += other.visible;
        kept += other.kept;
        return *this;
    }
};

/// How one call attends.
struct method_call {
    problem<float> const& given;
    view<float, axis::head, axis::query, axis::value_dim> output;
    index_t layer = 0;
    index_t first_row = 0; ///< queries from here on are counted
    exec::openmp const& run;
    engine::page_codes const* codes =
        nullptr; ///< that the cache keeps for the method, or null: made for the call
};

/// What a table of budgets must be of.
struct model_shape {
    std::string name; ///< as `model_name` says
    index_t layers = 0;
    index_t heads = 0;
};

/// What recorded data and budgets call a model: its folder's own name, which says more than the path.
[[nodiscard]] std::string model_name(std::filesystem::path const& folder);

/// A way to attend to all keys of a problem.
struct attention_method {
    std::string name; ///< as it was given
    std::string what; ///< in words
    /// Whether its time is that of an implementation that was written to be fast.
    bool is_timed = true;
    /// What a cache should keep for it.
    engine::kept_page_codes codes = engine::kept_page_codes::none;
    /// Writes the output; counts pairs.
    /// error  a budget that does not fit the problem
    std::function<pair_counts(method_call const&)> attend;
    /// Asked once before a model runs; may be empty.
    /// error  a table of budgets of another model: by name, or by layers and heads
    std::function<void(model_shape const&)> check;
};

/// What a name may be, for --help.
[[nodiscard]] std::string method_names();

/// dense, dense/bf16, dense/int8; mass:P, error:E or radius:R, each with /computed or /dropped or
/// both; mass:P/pages or error:E/pages, page_prefill, with /bf16 for its products, and pages, its preset;
/// budgets:FILE, output errors per layer and head as sofattn-calibrate wrote them; paper or paper:RATIO.
///
/// in     dense_below  sparse methods are dense below so many keys
/// error  no such name, or a number out of range; a file that is no table of budgets, of another
///        policy, or of several models
[[nodiscard]] attention_method find_method(std::string_view name, index_t dense_below);

/// The same with these sizes of tiles, where it is dense by its name; else as it is.
[[nodiscard]] attention_method with_tiles(attention_method method, tune::sizes const& sizes);

/// What budgets:FILE does, with an output error per layer and query head, in spreads of the values.
///
/// in     spreads  [layer][head], all of a model's, above 0
[[nodiscard]] attention_method
with_output_errors(std::string name, std::vector<std::vector<double>> spreads, index_t dense_below);

/// The policy of budgets that budgets:FILE takes: what sofattn-calibrate calls the stages that
/// sparse_prefill runs.
inline constexpr std::string_view budget_policy =
    "rotated_int8/adaptive/sufa_reusing/segment_means";

/// The method that others are compared with.
[[nodiscard]] inline attention_method dense_method() { return find_method("dense", 0); }

namespace detail {

/// The kernels' forms, one per source file, to share the compile time.
using sparse_attend = pair_counts (*)(method_call const&, attention_options const&,
                                      index_t dense_below);
pair_counts attend_reused_with_tail(method_call const&, attention_options const&, index_t);
pair_counts attend_reused(method_call const&, attention_options const&, index_t);
pair_counts attend_computed_with_tail(method_call const&, attention_options const&, index_t);
pair_counts attend_computed(method_call const&, attention_options const&, index_t);
pair_counts attend_to_pages(method_call const&, attention_options const&, index_t);
pair_counts attend_to_pages_in_bf16(method_call const&, attention_options const&, index_t);
pair_counts attend_as_the_paper(method_call const&, attention_options const&, index_t);

/// Pairs that a causal or full problem allows.
[[nodiscard]] std::uint64_t visible_pairs(problem_shape const& shape, index_t first_row);

/// Of a call whose rows kept [head, query] keys, or all of them where it was dense.
[[nodiscard]] pair_counts counted(method_call const& call, bool is_dense,
                                  std::span<std::uint64_t const> kept);

} // namespace detail

} // namespace sofattn::lm
