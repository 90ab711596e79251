// SPDX-License-Identifier: MIT
#include "dse/hardware.hpp"

#include "hw/described_json.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/dse/elementary.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/energy_table.hpp>
#include <sofattn/hw/prices.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace sofattn::dse {

namespace {

struct goal_words {
    std::string_view name;
    std::string_view axis;
};
constexpr std::array<goal_words, 3> goal_table{
    {{"latency", "Latency (ms)"}, {"energy", "Energy (mJ)"}, {"area", "Area (mm2)"}}};

std::vector<std::string> split(std::string const& text, char at, std::string const& whole,
                               char const* form) {
    std::vector<std::string> parts;
    for (std::size_t from = 0; from <= text.size();) {
        std::size_t const end = std::min(text.find(at, from), text.size());
        if (end == from) {
            throw error("variation", io::quoted(whole), form);
        }
        parts.push_back(text.substr(from, end - from));
        from = end + 1;
    }
    return parts;
}

hardware_figures figures_of_run(hw::run_report const& r) {
    hardware_figures f;
    f.seconds = r.seconds();
    f.joules = r.picojoules() * 1e-12;
    f.square_millimetres = hw::sum(r.square_micrometres) * 1e-6;
    f.effective_gops = r.effective_gops();
    for (double const share : r.port_shares()) {
        f.port_shares.push_back(share);
    }
    for (auto const& engine : r.timing.engines) {
        f.busy_shares.push_back(static_cast<double>(engine.busy.count()) /
                                static_cast<double>(r.timing.total.count()));
    }
    return f;
}

/// The fields of `to` that differ from those of `from`, as objects within objects.
json changed(json const& from, json const& to) {
    json fields = json::object();
    for (auto const& [name, value] : to.items()) {
        if (value.is_object()) {
            if (json inner = changed(from.at(name), value); !inner.empty()) {
                fields[name] = std::move(inner);
            }
        } else if (value != from.at(name)) {
            fields[name] = value;
        }
    }
    return fields;
}

/// Sets all fields of a dimension to one value.
void assign_all(hardware_dimension const& d, std::string const& value, hw::machine& m,
                hw::workload& w) {
    for (std::string const& path : d.paths) {
        std::string assignment = path;
        assignment.append("=").append(value);
        hw::assign(assignment, m, w);
    }
}

search_space space_of(std::vector<hardware_dimension> const& dimensions) {
    std::vector<dimension> all;
    for (hardware_dimension const& d : dimensions) {
        std::string name;
        for (std::string const& path : d.paths) {
            name += (name.empty() ? "" : "+") + path;
        }
        // The lattice is of places in the list: values of a machine go in powers of two.
        all.push_back({name, 0, std::ssize(d.values) - 1, 1, {}});
    }
    return search_space(std::move(all));
}

} // namespace

hardware_goal find_hardware_goal(std::string const& name) {
    for (std::size_t g = 0; g < goal_table.size(); ++g) {
        if (goal_table[g].name == name) {
            return static_cast<hardware_goal>(g);
        }
    }
    throw error("objective", io::quoted(name), hardware_goal_names);
}
std::string_view name_of(hardware_goal goal) noexcept {
    return goal_table[static_cast<std::size_t>(goal)].name;
}
std::string axis_name(hardware_goal goal) {
    return std::string(goal_table[static_cast<std::size_t>(goal)].axis);
}

std::vector<std::string> stage_names() {
    std::vector<std::string> names;
    for (std::size_t s = 0; s < hw::tile_stage_count; ++s) {
        names.emplace_back(hw::name(static_cast<hw::tile_stage>(s)));
    }
    for (std::size_t m = 0; m < hw::chip_memory_count; ++m) { // behind the stages, as in a pipeline
        names.push_back(std::string(hw::name(static_cast<hw::chip_memory>(m))) + " ports");
    }
    return names;
}

hardware_dimension parse_dimension(std::string const& text) {
    constexpr char const* form = "FIELD[+FIELD...]=VALUE,VALUE,... without gaps";
    std::size_t const sign = text.find('=');
    if (sign == std::string::npos) {
        throw error("variation", io::quoted(text), form);
    }
    hardware_dimension d{split(text.substr(0, sign), '+', text, form),
                         split(text.substr(sign + 1), ',', text, form)};
    auto sorted = d.values;
    std::sort(sorted.begin(), sorted.end());
    if (auto const twice = std::adjacent_find(sorted.begin(), sorted.end());
        twice != sorted.end()) {
        throw error("variation of " + io::quoted(text.substr(0, sign)),
                    io::quoted(*twice) + " twice", "a list of different values");
    }
    return d;
}

std::vector<hardware_dimension> usual_dimensions() {
    std::vector<hardware_dimension> all;
    for (char const* text :
         {"prediction.array_columns_count=8,12,16,24,32,48,64",
          "selection.cores_count=8,16,32,64,128",
          "generation.array_columns_count=1,2,3,4,5,6,7,8,9,10,12,14,16",
          "attention.keys_per_row_count+schedule.keys_per_phase_count=1,2,3,4",
          "attention.exp_units_count=1,2,4,8,16,32,64,128",
          "attention.dividers_count=1,2,4,8,16,32,64,128",
          "buffers.token.capacity_bytes=49152,98304,131072,196608,262144,393216",
          "buffers.weight.capacity_bytes=24576,49152,98304,196608",
          "pipeline.buffered_tiles_count=1,2,3,4", "tile_keys_count=32,64,128,256,512"}) {
        all.push_back(parse_dimension(text));
    }
    return all;
}

hardware_problem::hardware_problem(hw::machine base, hw::workload of,
                                   std::vector<hardware_dimension> dimensions,
                                   std::vector<hardware_goal> goals,
                                   std::optional<double> most_area)
    : base_(std::move(base)), of_(std::move(of)), dimensions_(std::move(dimensions)),
      goals_(std::move(goals)), most_area_(most_area), space_(space_of(dimensions_)) {
    hw::validate(base_);
    hw::validate(of_);
    // Every value is tried alone, so that a wrong name or kind is told before any search.
    for (hardware_dimension const& d : dimensions_) {
        patches_.emplace_back();
        for (std::string const& value : d.values) {
            hw::machine m = base_;
            hw::workload w = of_;
            assign_all(d, value, m, w);
            hw::check_fields(m, "hardware: ");
            hw::check_fields(w, "workload: ");
            patches_.back().push_back({changed(hw::to_json_value(base_), hw::to_json_value(m)),
                                       changed(hw::to_json_value(of_), hw::to_json_value(w))});
        }
    }
}

std::pair<hw::machine, hw::workload> hardware_problem::at(point const& p) const {
    std::pair<hw::machine, hw::workload> made{base_, of_};
    for (std::size_t d = 0; d < dimensions_.size(); ++d) {
        patch const& one = patches_[d][static_cast<std::size_t>(p[d])];
        hw::set_fields(made.first, one.machine, "hardware: ");
        hw::set_fields(made.second, one.workload, "workload: ");
    }
    return made;
}

std::string hardware_problem::base_value(std::string const& path) const {
    for (auto const& fields : {hw::explain(of_), hw::explain(base_)}) { // as hw::assign looks
        for (hw::explained_field const& f : fields) {
            if (f.name == path) {
                return f.value;
            }
        }
    }
    return {};
}

std::optional<point> hardware_problem::base_point() const {
    point p;
    for (hardware_dimension const& d : dimensions_) {
        std::string const value = base_value(d.paths.front());
        auto const found = std::find(d.values.begin(), d.values.end(), value);
        if (found == d.values.end()) {
            return std::nullopt;
        }
        p.push_back(found - d.values.begin());
    }
    return p;
}

json hardware_problem::purpose() const {
    json lists = json::array();
    for (std::size_t d = 0; d < dimensions_.size(); ++d) {
        lists.push_back({{"fields", space_[d].name}, {"values", dimensions_[d].values}});
    }
    json names = json::array();
    for (hardware_goal const g : goals_) {
        names.push_back(name_of(g));
    }
    return {{"command", "hardware"},
            {"objectives", names},
            {"most_square_millimetres", most_area_ ? json(*most_area_) : json()},
            {"dimensions", lists},
            {"machine", hw::to_json_value(base_)},
            {"workload", hw::to_json_value(of_)}};
}

bool hardware_problem::is_allowed(point const& p) const {
    auto const [m, w] = at(p);
    if (most_area_ &&
        hw::sum(hw::area_square_micrometres(hw::prices_for(m), m)) * 1e-6 > *most_area_) {
        return false; // the cheaper question first
    }
    try {
        hw::validate(m);
        hw::validate(w);
    } catch (error const&) { // parts that do not fit together
        return false;
    }
    return true;
}

hardware_figures hardware_problem::figures_of(point const& p) const {
    auto const [m, w] = at(p);
    return figures_of_run(hw::run(w, m));
}
hardware_figures hardware_problem::base_figures() const {
    return figures_of_run(hw::run(of_, base_));
}

evaluation hardware_problem::evaluate(point const& p) const {
    hardware_figures const f = figures_of(p);
    evaluation e;
    for (hardware_goal const g : goals_) {
        // Logarithms: half the latency is as good from anywhere.
        e.result.objectives.push_back(logarithm(g == hardware_goal::seconds ? f.seconds
                                                : g == hardware_goal::joules
                                                    ? f.joules
                                                    : f.square_millimetres));
    }
    e.details = {{"seconds", f.seconds},
                 {"joules", f.joules},
                 {"square_millimetres", f.square_millimetres},
                 {"effective_gops", f.effective_gops}};
    return e;
}

json hardware_problem::settings_of(point const& p) const {
    json settings = json::object();
    for (std::size_t d = 0; d < dimensions_.size(); ++d) {
        for (std::string const& path : dimensions_[d].paths) {
            settings[path] = dimensions_[d].values[static_cast<std::size_t>(p[d])];
        }
    }
    return settings;
}
json hardware_problem::machine_file(point const& p) const { return hw::to_json_value(at(p).first); }
json hardware_problem::workload_file(point const& p) const {
    return hw::to_json_value(at(p).second);
}

std::vector<hardware_problem::change> hardware_problem::changes(point const& p) const {
    std::vector<change> all;
    for (std::size_t d = 0; d < dimensions_.size(); ++d) {
        std::string const from = base_value(dimensions_[d].paths.front());
        std::string const& to = dimensions_[d].values[static_cast<std::size_t>(p[d])];
        if (from == to) {
            continue;
        }
        auto [m, w] = at(p);
        for (std::string const& path : dimensions_[d].paths) {
            hw::assign(path + "=" + base_value(path), m, w);
        }
        all.push_back({space_[d].name, from, to, figures_of_run(hw::run(w, m))});
    }
    return all;
}

} // namespace sofattn::dse
