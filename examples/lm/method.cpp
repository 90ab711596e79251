// SPDX-License-Identifier: MIT
#include "lm/method.hpp"

#include "attend/budgets.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::lm {

namespace {

/// What `pages` means: a mean KL below 0.003 to dense on minimind2-small, as error:0.004 has.
constexpr std::string_view pages_preset = "mass:0.99/pages";

template <dense_products Products>
attention_method attending_densely(std::string_view name, char const* what,
                                   sufa::block_tiles tiles) {
    attention_method m;
    m.name = name;
    m.what = what;
    if (tiles != default_tiles<Products>) {
        m.what += ", tiles of " + std::to_string(tiles.keys) + " keys, blocks of " +
                  std::to_string(tiles.rows) + " rows";
    }
    m.attend = [tiles](method_call const& call) -> pair_counts {
        problem_shape const shape = call.given.shape();
        std::vector<std::byte> workspace(
            dense_workspace_bytes<Products>(shape, call.run.threads(), tiles));
        dense_attention<Products>(call.given, call.output, workspace, call.run, {}, tiles);
        std::uint64_t const pairs = detail::visible_pairs(shape, call.first_row);
        return {pairs, pairs};
    };
    return m;
}
std::optional<attention_method> dense(std::string_view name, tune::sizes const& sizes) {
    if (name == "dense") {
        return attending_densely<dense_products::f32>(name, "all keys, f32", sizes.f32);
    }
    if (name == "dense/bf16") {
        return attending_densely<dense_products::bf16>(name, "all keys, bf16 products", sizes.bf16);
    }
    if (name == "dense/int8") {
        return attending_densely<dense_products::int8>(name, "all keys, int8 products", sizes.int8);
    }
    return std::nullopt;
}

/// The number after "what:", or nothing.
std::optional<double> number_after(std::string_view text, std::string_view what) {
    if (!text.starts_with(what) || text.size() <= what.size() + 1 || text[what.size()] != ':') {
        return std::nullopt;
    }
    text.remove_prefix(what.size() + 1);
    double value = 0;
    auto const read = std::from_chars(text.data(), text.data() + text.size(), value);
    bool const is_all = read.ec == std::errc() && read.ptr == text.data() + text.size();
    return is_all ? std::optional(value) : std::nullopt;
}

/// Takes `ending` off, if it is there.
bool take_off(std::string_view& text, std::string_view ending) {
    if (!text.ends_with(ending)) {
        return false;
    }
    text.remove_suffix(ending.size());
    return true;
}

std::optional<sads::budget> budget_of(std::string_view text) {
    // Forced keys as in presets::recommended: a model that was not tuned for sparsity needs them.
    sads::budget budget = presets::recommended::options().budget;
    budget.output_error.reset();
    if (auto const mass = number_after(text, "mass"); mass && *mass > 0 && *mass <= 1) {
        budget.mass = mass;
    } else if (auto const spreads = number_after(text, "error");
               spreads && *spreads > 0 && std::isfinite(*spreads)) {
        budget.output_error = spreads;
    } else if (auto const logits = number_after(text, "radius"); logits && *logits >= 0) {
        budget.radius = *logits;
    } else {
        return std::nullopt;
    }
    return budget;
}

std::optional<attention_method> of_pages(std::string_view name, index_t dense_below) {
    std::string_view left = name;
    bool const rounds = take_off(left, "/bf16");
    left = left == "pages" ? pages_preset : left;
    if (!take_off(left, "/pages")) {
        return std::nullopt;
    }
    auto const budget = budget_of(left);
    if (!budget || !(budget->mass || budget->output_error)) {
        return std::nullopt;
    }
    attention_options options;
    options.budget = *budget;
    attention_method m;
    m.name = name;
    m.what = std::string("whole pages of 16 keys by their sketches; logits computed, ") +
             (rounds ? "bf16" : "f32") +
             " products; skipped pages stood in for by means of their segments";
    m.codes = rounds ? engine::kept_page_codes::bf16 : engine::kept_page_codes::f32;
    m.attend = [attend = rounds ? detail::attend_to_pages_in_bf16 : detail::attend_to_pages,
                options, dense_below](method_call const& call) {
        return attend(call, options, dense_below);
    };
    return m;
}

std::optional<attention_method> sparse(std::string_view name, index_t dense_below) {
    std::string_view left = name;
    bool drops = false;
    bool computes = false;
    while (true) {
        if (!drops && take_off(left, "/dropped")) {
            drops = true;
        } else if (!computes && take_off(left, "/computed")) {
            computes = true;
        } else {
            break;
        }
    }
    auto const budget = budget_of(left);
    if (!budget) {
        return std::nullopt;
    }
    attention_options options;
    options.budget = *budget;
    detail::sparse_attend const attend =
        computes ? (drops ? detail::attend_computed : detail::attend_computed_with_tail)
                 : (drops ? detail::attend_reused : detail::attend_reused_with_tail);
    attention_method m;
    m.name = name;
    m.what = std::string("int8 prediction of rotated keys; logits ") +
             (computes ? "computed" : "reused") + "; dropped keys " +
             (drops ? "ignored" : "stood in for by means of their segments");
    m.attend = [attend, options, dense_below](method_call const& call) {
        return attend(call, options, dense_below);
    };
    return m;
}

/// Budgets per head of a layer of the table.
std::vector<sads::budget> head_budgets(attend::budget_table const& table,
                                       std::filesystem::path const& file, index_t layer,
                                       index_t heads) {
    attend::layer_info info;
    info.model = table.layers.front().model;
    info.layer = static_cast<int>(layer);
    for (index_t h = 0; h < heads; ++h) {
        info.q_heads.push_back(static_cast<int>(h));
    }
    return attend::budgets_of(table, file, info, presets::recommended::options().budget);
}

/// Throws `error` for budgets of another model. A layer or a head too many is one as well.
void check_is_of(attend::budget_table const& table, std::filesystem::path const& file,
                 model_shape const& model) {
    std::string const where = io::shown(file) + ": ";
    if (table.layers.front().model != model.name) {
        throw error(where + "model", io::quoted(table.layers.front().model),
                    "that of the model's folder, " + io::quoted(model.name));
    }
    for (index_t layer = 0; layer < model.layers; ++layer) {
        static_cast<void>(head_budgets(table, file, layer, model.heads));
    }
    for (auto const& layer : table.layers) {
        if (layer.layer < 0 || layer.layer >= model.layers) {
            throw error(where + "layer", std::to_string(layer.layer),
                        "from 0 to the model's last, " + std::to_string(model.layers - 1));
        }
        std::string head_name = where + "layer ";
        head_name += std::to_string(layer.layer) + ", query head";
        for (auto const& head : layer.heads) {
            if (head.query_head < 0 || head.query_head >= model.heads) {
                throw error(head_name, std::to_string(head.query_head),
                            "from 0 to the model's last, " + std::to_string(model.heads - 1));
            }
        }
    }
}

std::optional<attention_method> calibrated(std::string_view name, index_t dense_below) {
    constexpr std::string_view prefix = "budgets:";
    if (!name.starts_with(prefix)) {
        return std::nullopt;
    }
    std::filesystem::path const file(name.substr(prefix.size()));
    auto const table = attend::read_budgets(file);
    if (table.policy != budget_policy) {
        throw error(io::shown(file) + ": policy", io::quoted(table.policy),
                    std::string(budget_policy));
    }
    if (table.layers.empty()) {
        throw error(io::shown(file) + ": layers", "an empty array", "of at least one layer");
    }
    for (auto const& layer : table.layers) {
        if (layer.model != table.layers.front().model) {
            throw error(io::shown(file) + ": layers", "of several models", "of one model");
        }
    }
    attention_method m;
    m.name = name;
    m.what = "int8 prediction of rotated keys; logits reused; output errors per layer and head";
    m.attend = [table, file, dense_below](method_call const& call) {
        attention_options options;
        options.head_budgets = head_budgets(table, file, call.layer, call.given.shape().heads);
        return detail::attend_reused_with_tail(call, options, dense_below);
    };
    m.check = [table, file](model_shape const& model) { check_is_of(table, file, model); };
    return m;
}

std::optional<attention_method> paper(std::string_view name) {
    double ratio = 0.1;
    if (name != "paper") {
        auto const given = number_after(name, "paper");
        if (!given || !(*given > 0 && *given <= 1)) {
            return std::nullopt;
        }
        ratio = *given;
    }
    attention_method m;
    m.name = name;
    m.what = "the paper's: 16-bit DLZS, contiguous segments, one ratio, dropped keys ignored; "
             "reference executor";
    m.is_timed = false;
    m.attend = [options = presets::paper::options(ratio)](method_call const& call) {
        return detail::attend_as_the_paper(call, options, 0);
    };
    return m;
}

} // namespace

std::uint64_t detail::visible_pairs(problem_shape const& shape, index_t first_row) {
    std::uint64_t sum = 0;
    for (index_t q = first_row; q < shape.queries; ++q) {
        sum += static_cast<std::uint64_t>(shape.visible(q));
    }
    return sum * static_cast<std::uint64_t>(shape.heads);
}

pair_counts detail::counted(method_call const& call, bool is_dense,
                            std::span<std::uint64_t const> kept) {
    problem_shape const shape = call.given.shape();
    pair_counts counts;
    counts.visible = visible_pairs(shape, call.first_row);
    if (is_dense) {
        counts.kept = counts.visible;
        return counts;
    }
    for (index_t head = 0; head < shape.heads; ++head) {
        auto const row = kept.begin() + head * shape.queries;
        counts.kept += std::accumulate(row + std::min(call.first_row, shape.queries),
                                       row + shape.queries, std::uint64_t{0});
    }
    return counts;
}

std::string method_names() {
    return "dense, dense/bf16, dense/int8; mass:P, error:E or radius:R, alone or with /computed "
           "and /dropped; pages, mass:P/pages or error:E/pages, alone or with /bf16; budgets:FILE; "
           "paper:RATIO";
}

std::string model_name(std::filesystem::path const& folder) {
    auto const full = std::filesystem::absolute(folder).lexically_normal();
    return io::shown(full.has_filename() ? full.filename() : full.parent_path().filename());
}

attention_method with_output_errors(std::string name, std::vector<std::vector<double>> spreads,
                                    index_t dense_below) {
    attention_method m;
    m.name = std::move(name);
    m.what = "int8 prediction of rotated keys; logits reused; output errors per layer and head";
    m.attend = [spreads = std::move(spreads), dense_below](method_call const& call) {
        attention_options options;
        for (double const error : spreads.at(static_cast<std::size_t>(call.layer))) {
            options.head_budgets.push_back(presets::recommended::options(error).budget);
        }
        return detail::attend_reused_with_tail(call, options, dense_below);
    };
    return m;
}

attention_method with_tiles(attention_method method, tune::sizes const& sizes) {
    auto tiled = dense(method.name, sizes);
    return tiled ? *std::move(tiled) : std::move(method);
}

attention_method find_method(std::string_view name, index_t dense_below) {
    if (auto found = dense(name, {})) {
        return *std::move(found);
    }
    if (auto found = of_pages(name, dense_below)) {
        return *std::move(found);
    }
    if (auto found = sparse(name, dense_below)) {
        return *std::move(found);
    }
    if (auto found = calibrated(name, dense_below)) {
        return *std::move(found);
    }
    if (auto found = paper(name)) {
        return *std::move(found);
    }
    throw error("attention method", io::quoted(name),
                "one of " + method_names() + " (P and RATIO in (0, 1], E above 0, R at least 0)");
}

} // namespace sofattn::lm
