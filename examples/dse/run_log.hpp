// SPDX-License-Identifier: MIT
// Runs that take seconds each, made in worker processes and kept in a file, so that none is made
// twice: not by one command, and not by the next that goes on where it was stopped.
#pragma once

#include "dse/state.hpp"
#include "dse/workers.hpp"
#include <sofattn/core/types.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace sofattn::dse {

/// A run by a name that says all that it depends on beside the log's purpose.
struct named_run {
    std::string name;
    std::function<json()> make; ///< figures; called in a process of its own
};

/// How runs are made, and who is told of them.
struct run_options {
    worker_options workers{};
    bool show_progress = true;
};

class run_log {
public:
    /// Reads what the file holds, if there is one; an empty path keeps nothing.
    /// error  a file that is no log (file, line where it is not even JSON), or one of another purpose
    ///        (file, field, both values); the file is read only
    run_log(std::filesystem::path file, json purpose);

    /// The root's runs, on every rank; all call it.
    void share(ranks const& all);

    /// The figures of all runs, in order: from the log, or made now. The file is written after each.
    /// `what` is for progress.
    /// error  a run that throws, crashes or takes too long
    [[nodiscard]] std::vector<json> figures(std::vector<named_run> const& runs,
                                            run_options const& options, std::string const& what);

    [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(runs_.size()); }
    /// Made by this process; the rest was in the file.
    [[nodiscard]] index_t made_here() const noexcept { return made_here_; }

private:
    void save() const;

    std::filesystem::path file_;
    json purpose_;
    json runs_ = json::object(); ///< by name
    index_t made_here_ = 0;
};

} // namespace sofattn::dse
