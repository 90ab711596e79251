// SPDX-License-Identifier: MIT
// A search as JSON: what it is for, its trials, and what was measured beside their objectives.
#pragma once

#include <sofattn/dse/options.hpp>
#include <sofattn/dse/space.hpp>
#include <sofattn/dse/trial.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::dse {

using json = nlohmann::ordered_json;

/// What a state file must agree on before a run goes on from it: a trial of another objective, space
/// or seed is no trial of this one.
struct search_identity {
    json purpose = json::object(); ///< everything that the objective depends on
    search_space space;
    search_options options{};
    index_t batch = 1; ///< points asked at a time
};

/// Trials, and what their evaluations told beside the outcome: null where nothing.
struct search_state {
    std::vector<trial> trials{};
    std::vector<json> details{}; ///< [trial]
};

/// Throws `error` where two descriptions differ first, as "options.seed", in the name of `where`.
void check_same(json const& found, json const& wanted, std::string const& where);

[[nodiscard]] json to_json(outcome const& result);
/// Throws `error` in the name of `where`.
[[nodiscard]] outcome outcome_from(json const& object, std::string const& where);
/// The values of a point by the names of its dimensions, without those that do not count.
[[nodiscard]] json values_of(search_space const& space, point const& at);

[[nodiscard]] json to_json(search_identity const& identity);
[[nodiscard]] json to_json(search_identity const& identity, search_state const& state);
/// Of the second; throws `error` in the name of `where` for what is no state, or another search's.
[[nodiscard]] search_state state_from(json object, search_identity const& identity,
                                      std::string const& where);

/// What the file holds, or nothing if there is no such file. Throws `error` for a file that is no
/// state (file, line where it is not even JSON) or that of another search (file, field, both values);
/// the file is read only.
[[nodiscard]] std::optional<search_state> read_state(std::filesystem::path const& file,
                                                     search_identity const& identity);
/// Complete or not at all. Throws `error` where the file cannot be written.
void write_state(std::filesystem::path const& file, search_identity const& identity,
                 search_state const& state);

} // namespace sofattn::dse
