// SPDX-License-Identifier: MIT
// Machines as points: fields of a description by name, and what a run of one says.
#pragma once

#include "dse/state.hpp"
#include "dse/workers.hpp"
#include "hw/settings.hpp"
#include <sofattn/dse/options.hpp>
#include <sofattn/dse/space.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/workload.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::dse {

/// What is to be made small.
enum class hardware_goal { seconds, joules, square_millimetres };
inline constexpr char const* hardware_goal_names = "latency, energy or area";

/// By the names above; throws `error` for another.
[[nodiscard]] hardware_goal find_hardware_goal(std::string const& name);
[[nodiscard]] std::string_view name_of(hardware_goal goal) noexcept;
/// "Latency (ms)".
[[nodiscard]] std::string axis_name(hardware_goal goal);

/// A list of values for one or more fields that go together: "a.x_count+b.x_count=1,2,4".
struct hardware_dimension {
    std::vector<std::string> paths;
    std::vector<std::string> values;
};
/// Throws `error` for a text of another form.
[[nodiscard]] hardware_dimension parse_dimension(std::string const& text);
/// Arrays, sorters, exponentials, dividers, memories and tile size around Table III's.
[[nodiscard]] std::vector<hardware_dimension> usual_dimensions();

/// What a machine comes to on the workload.
struct hardware_figures {
    double seconds = 0;
    double joules = 0;
    double square_millimetres = 0;
    double effective_gops = 0; ///< dense work over the time of everything: the honest throughput
    std::vector<double> port_shares{}; ///< token, weight, temporary; time waits for them
    std::vector<double> busy_shares{}; ///< of every stage
};

/// The objective of a hardware search. Where a list holds the base machine's own value for every
/// dimension, the base is a point.
class hardware_problem {
public:
    /// `most_area`: square millimetres that a machine may have, by its price table.
    /// error  unknown fields or values that no machine or workload takes, an empty list
    hardware_problem(hw::machine base, hw::workload of, std::vector<hardware_dimension> dimensions,
                     std::vector<hardware_goal> goals, std::optional<double> most_area);

    [[nodiscard]] search_space const& space() const noexcept { return space_; }
    [[nodiscard]] std::vector<hardware_dimension> const& dimensions() const noexcept {
        return dimensions_;
    }
    [[nodiscard]] std::vector<hardware_goal> const& goals() const noexcept { return goals_; }
    /// The base machine as a point.
    [[nodiscard]] std::optional<point> base_point() const;
    /// Everything the objective depends on, for a state file.
    [[nodiscard]] json purpose() const;

    /// A machine that exists (hw::validate) and is not too large: known without a run.
    [[nodiscard]] bool is_allowed(point const& p) const;
    /// The goals' values, and the figures as details. Throws `error` for a machine that cannot run.
    [[nodiscard]] evaluation evaluate(point const& p) const;
    [[nodiscard]] hardware_figures figures_of(point const& p) const;
    [[nodiscard]] hardware_figures base_figures() const;
    /// Values by field, as sofattn-hw reads them.
    [[nodiscard]] json settings_of(point const& p) const;
    /// A machine file and a workload file for sofattn-hw.
    [[nodiscard]] json machine_file(point const& p) const;
    [[nodiscard]] json workload_file(point const& p) const;

    /// One changed field: what the found machine would be without the change.
    struct change {
        std::string path;
        std::string from;
        std::string to;
        hardware_figures without;
    };
    /// Dimensions in which p differs from the base, in order.
    [[nodiscard]] std::vector<change> changes(point const& p) const;

private:
    [[nodiscard]] std::pair<hw::machine, hw::workload> at(point const& p) const;
    [[nodiscard]] std::string base_value(std::string const& path) const;

    /// A value's fields, as hw::set_fields reads them.
    struct patch {
        json machine = json::object();
        json workload = json::object();
    };

    hw::machine base_;
    hw::workload of_;
    std::vector<hardware_dimension> dimensions_;
    std::vector<hardware_goal> goals_;
    std::optional<double> most_area_;
    std::vector<std::vector<patch>> patches_; ///< [dimension][level]
    search_space space_;
};

/// Names of the stages of `busy_shares`.
[[nodiscard]] std::vector<std::string> stage_names();

} // namespace sofattn::dse
