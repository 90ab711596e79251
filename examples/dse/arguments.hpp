// SPDX-License-Identifier: MIT
// The command line of sofattn-dse, and its commands.
#pragma once

#include "dse/drive.hpp"
#include "dse/model_options.hpp"
#include <sofattn/core/types.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::dse {

struct arguments {
    // of every search
    index_t evaluations = 200;
    index_t batch = 1;
    std::uint64_t seed = 1;
    index_t workers = 1;
    double timeout_seconds = 0;
    std::filesystem::path state;
    std::filesystem::path result;
    std::filesystem::path html;
    bool no_baselines = false;
    bool uses_mpi = false;
    ranks* across = nullptr; ///< by main, if uses_mpi
    bool quiet = false;
    // hardware
    std::string machine_name = "sofa_28nm";
    std::string workload_name = "llama_7b_layer";
    std::vector<std::string> assignments;
    std::vector<std::string> variations;
    std::vector<std::string> objectives{"latency"};
    std::optional<double> most_area;
    bool is_area_free = false;
    std::filesystem::path machine_out;
    std::filesystem::path workload_out;
    // layers
    std::filesystem::path folder;
    std::vector<int> layers;
    std::string model;
    std::string policy = "paper";
    index_t queries = 256;
    std::string weights = "sofa_inferred";
    std::string goal = "operations";
    std::string eq2_model = "llama_7b";
    std::optional<double> most_error;
    bool one_ratio = false;
    std::optional<index_t> most_kept_percent;
    // model
    std::filesystem::path text;
    std::filesystem::path budgets_out;
    model_options model_windows{};
    double most_kl = 0.003;
    bool no_bos = false;
    // synthetic
    index_t seeds = 20;
};

/// One method's search, for tables and pictures.
struct method_run {
    method by = method::bayesian;
    drive_result result;
};

/// The Bayesian search with the state file, then the baselines without (they are compared, not
/// kept), with the same seed and number of evaluations. `on_details` hears what every evaluation
/// told, those of the state file first.
[[nodiscard]] std::vector<method_run>
run_methods(search_identity const& identity, allowed_points const& allowed,
            batch_evaluator const& evaluate, arguments const& a,
            std::function<void(json const&)> const& on_details,
            std::function<double(double)> const& shown);

/// The options of a drive that the command line gives.
[[nodiscard]] worker_options workers_of(arguments const& a);

/// Output files are tried before any work, and appear complete or not at all.
void check_writable(std::filesystem::path const& file);
void write_text(std::filesystem::path const& file, std::string const& text);

/// printf of one number.
[[nodiscard]] std::string number(char const* format, double value);
/// "200 evaluations (3 failed, 1 timed out), 12 s": of the search.
[[nodiscard]] std::string effort_text(drive_result const& of);
/// The same as JSON.
[[nodiscard]] json effort_json(search_identity const& identity, drive_result const& of);

int hardware_command(arguments const& a);
int layers_command(arguments const& a);
int model_command(arguments const& a); ///< where sofattn-lm is built
int synthetic_command(arguments const& a);

} // namespace sofattn::dse
