// SPDX-License-Identifier: MIT
// Runs the other programs, which compute what the report is made of.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace sofattn::paper {

using json = nlohmann::json;
using words = std::vector<std::string>;

/// Programs of one folder, and what they write.
class tools {
public:
    /// `programs`: their folder. `results`: takes their JSON files, which stay. `most_seconds`: for
    /// each run, then it is killed.
    tools(std::filesystem::path programs, std::filesystem::path results, double most_seconds)
        : programs_(std::move(programs)), results_(std::move(results)),
          most_seconds_(most_seconds) {}

    /// Runs `program arguments... --json RESULTS/name.json` and reads that file. What the program
    /// prints is dropped. Throws `error` for a program that is not there, does not end in time, or
    /// ends with anything but 0: its last line on standard error is the message.
    [[nodiscard]] json run(std::string const& program, words const& arguments,
                           std::string const& name);

    /// Command lines so far, without folders of programs; a part's own where it needs none.
    [[nodiscard]] words const& commands() const noexcept { return commands_; }
    void note(std::string command) { commands_.push_back(std::move(command)); }
    void forget() { commands_.clear(); }

private:
    std::filesystem::path programs_;
    std::filesystem::path results_;
    double most_seconds_;
    words commands_;
};

} // namespace sofattn::paper
