// SPDX-License-Identifier: MIT
// The exception of the library's boundary: construction, problem descriptors and files.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace sofattn {

/// Says what is wrong, which value was found and which limit it breaks; the three parts are also
/// kept apart, so that a program can word its own message. Stages never throw it (they are
/// noexcept and assert): it is raised before a run starts.
class error : public std::runtime_error {
public:
    error(std::string what, std::string value, std::string limit)
        : std::runtime_error(what + " is " + value + ", must be " + limit),
          subject_(std::move(what)), value_(std::move(value)), limit_(std::move(limit)) {}

    /// What is wrong, e.g. "attention: keys kept per row".
    [[nodiscard]] std::string const& subject() const noexcept { return subject_; }
    /// The value found, as text.
    [[nodiscard]] std::string const& value() const noexcept { return value_; }
    /// The limit it breaks, as text.
    [[nodiscard]] std::string const& limit() const noexcept { return limit_; }

private:
    std::string subject_;
    std::string value_;
    std::string limit_;
};

} // namespace sofattn
