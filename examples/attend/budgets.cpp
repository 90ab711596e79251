// SPDX-License-Identifier: MIT
#include "attend/budgets.hpp"

#include "attend/json.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>

namespace sofattn::attend {

namespace {

using json = nlohmann::json;

/// A field of an object, or an error that says where it should be.
template <class T>
T field(json const& object, char const* name, std::string const& where, char const* limit) {
    if (!object.is_object() || !object.contains(name)) {
        throw error(where + ": " + name, "missing", limit);
    }
    try {
        return object.at(name).get<T>();
    } catch (json::exception const&) {
        throw error(where + ": " + name, object.at(name).dump(), limit);
    }
}

} // namespace

budget_table read_budgets(std::filesystem::path const& path) {
    io::input_file file(path);
    json const content = json::parse(file.stream, nullptr, false);
    if (content.is_discarded()) {
        throw error(file.name + ": content", "not JSON", "a table that sofattn-calibrate wrote");
    }
    budget_table table;
    auto const format = field<std::string>(content, "format", file.name, table.format.c_str());
    if (format != table.format) {
        throw error(file.name + ": format", io::quoted(format), table.format);
    }
    table.policy = field<std::string>(content, "policy", file.name, "the name of a policy");
    table.kept_share = content.value("kept_share", 0.0);
    table.output_error_relative = content.value("output_error_relative", 0.0);
    auto const layers = field<json>(content, "layers", file.name, "an array");
    for (std::size_t l = 0; l < layers.size(); ++l) {
        std::string const where = file.name + ": layers[" + std::to_string(l) + "]";
        layer_budgets layer;
        layer.model = field<std::string>(layers[l], "model", where, "the name of a model");
        layer.layer = field<int>(layers[l], "layer", where, "a whole number");
        auto const heads = field<json>(layers[l], "heads", where, "an array");
        for (std::size_t h = 0; h < heads.size(); ++h) {
            std::string const at = where + ".heads[" + std::to_string(h) + "]";
            head_budget head;
            head.query_head = field<int>(heads[h], "query_head", at, "a whole number");
            head.output_error_spreads =
                field<double>(heads[h], "output_error_spreads", at, "a number above 0");
            if (!(head.output_error_spreads > 0 && std::isfinite(head.output_error_spreads))) {
                throw error(at + ": output_error_spreads",
                            heads[h].at("output_error_spreads").dump(), "a number above 0");
            }
            layer.heads.push_back(head);
        }
        table.layers.push_back(std::move(layer));
    }
    return table;
}

std::string to_json_text(budget_table const& table) {
    return detail::value_to_json(table).dump(2, ' ', false,
                                             nlohmann::json::error_handler_t::replace) +
           "\n";
}

std::vector<sads::budget> budgets_of(budget_table const& table, std::filesystem::path const& file,
                                     layer_info const& layer, sads::budget const& base) {
    auto const found = std::ranges::find_if(table.layers, [&](layer_budgets const& l) {
        return l.model == layer.model && l.layer == layer.layer;
    });
    std::string const where =
        io::shown(file) + ": budgets of " + layer.model + ", layer " + std::to_string(layer.layer);
    if (found == table.layers.end()) {
        throw error(where, "missing", "one of the table's layers");
    }
    std::vector<sads::budget> budgets;
    for (int const number : layer.q_heads) {
        auto const head = std::ranges::find(found->heads, number, &head_budget::query_head);
        if (head == found->heads.end()) {
            throw error(where + ", query head " + std::to_string(number), "missing",
                        "one of the layer's heads");
        }
        sads::budget budget = base;
        budget.mass.reset();
        budget.output_error = head->output_error_spreads;
        budgets.push_back(budget);
    }
    return budgets;
}

} // namespace sofattn::attend
