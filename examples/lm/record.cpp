// SPDX-License-Identifier: MIT
#include "lm/record.hpp"

#include "lm/method.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/npy.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <system_error>

namespace sofattn::lm {

namespace {

/// Rows of heads as f16, in C order.
template <class... Axes>
void write_rows(std::filesystem::path const& file, view<float const, Axes...> rows) {
    std::vector<half> numbers;
    numbers.reserve(static_cast<std::size_t>(rows.size()));
    auto const [heads, tokens, dim] = rows.extents();
    for (index_t h = 0; h < heads; ++h) {
        for (index_t t = 0; t < tokens; ++t) {
            for (index_t d = 0; d < dim; ++d) {
                half const x(rows(h, t, d));
                if (!std::isfinite(static_cast<float>(x))) {
                    throw error(io::shown(file) + ": number of head " + std::to_string(h) +
                                    ", token " + std::to_string(t),
                                std::to_string(rows(h, t, d)), "within the range of f16");
                }
                numbers.push_back(x);
            }
        }
    }
    io::write_npy(file, view<half const, Axes...>(numbers.data(), rows.extents()));
}

std::string layer_name(index_t layer) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "L%02td", layer);
    return text.data();
}

} // namespace

void record(decoder const& model, std::span<token_id const> window,
            std::filesystem::path const& folder, record_options const& options,
            exec::openmp const& run, std::function<void(double share)> const& progress) {
    auto const& config = model.config();
    for (index_t const layer : options.layers) {
        if (layer < 0 || layer >= config.layers) {
            throw error("--layers", std::to_string(layer),
                        "from 0 to " + std::to_string(config.layers - 1));
        }
    }
    std::filesystem::path const manifest = folder / "manifest.json";
    if (std::filesystem::exists(manifest)) {
        throw error(io::shown(manifest), "there", "left to this program to write");
    }
    std::error_code code;
    std::filesystem::create_directories(folder, code);
    if (code) {
        throw error(io::shown(folder), "not writable (" + code.message() + ")", "a folder");
    }

    nlohmann::ordered_json files = nlohmann::ordered_json::array();
    auto const dense = dense_method();
    kv_cache cache(config, std::ssize(window));
    static_cast<void>(model(
        window, cache,
        [&](index_t layer, problem<float> const& given, attention_output output) {
            progress(static_cast<double>(layer) / static_cast<double>(config.layers));
            bool const is_wanted = options.layers.empty() ||
                                   std::ranges::find(options.layers, layer) != options.layers.end();
            if (is_wanted) {
                auto const write = [&](char const* part, char const* what, char const* axes,
                                       auto rows) {
                    std::string const name = layer_name(layer) + "_" + part + ".npy";
                    write_rows(folder / name, rows);
                    files.push_back({{"file", name},
                                     {"layer", layer},
                                     {"shape", rows.extents()},
                                     {"what", what},
                                     {"axes", axes}});
                };
                write("q", "queries after RoPE", "q_head,token,dim", given.queries);
                write("k", "keys after RoPE", "kv_head,token,dim", given.keys);
                write("v", "values", "kv_head,token,dim", given.values);
            }
            static_cast<void>(dense.attend({given, output, layer, 0, run}));
        },
        run));
    nlohmann::ordered_json content;
    content["model"] = options.model;
    content["text"] = options.text;
    content["tokens"] = window.size();
    content["causal"] = true;
    content["n_layers"] = config.layers;
    content["n_q_heads"] = config.heads;
    content["n_kv_heads"] = config.kv_heads;
    content["head_dim"] = config.head_dim;
    content["softmax_scale"] = 1 / std::sqrt(static_cast<double>(config.head_dim));
    content["files"] = files;
    io::atomic_file out(manifest);
    out.write(content.dump(1, ' ', false, nlohmann::json::error_handler_t::replace));
    out.write("\n");
    out.commit();
}

} // namespace sofattn::lm
