// SPDX-License-Identifier: MIT
// A file's bytes in memory without reading it: pages come when they are touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

namespace sofattn::lm {

/// A regular file, mapped for reading. Assumes that nobody cuts it shorter meanwhile: the system
/// ends a program that reads where a file has been.
class mapped_file {
public:
    /// error  missing, not a regular file, unreadable, no room in the address space
    explicit mapped_file(std::filesystem::path const& path);
    mapped_file(mapped_file&& other) noexcept
        : name_(std::move(other.name_)), bytes_(std::exchange(other.bytes_, {})) {}
    mapped_file(mapped_file const&) = delete;
    mapped_file& operator=(mapped_file&&) = delete;
    mapped_file& operator=(mapped_file const&) = delete;
    ~mapped_file();

    [[nodiscard]] std::string const& name() const noexcept { return name_; }
    /// Starts on a page.
    [[nodiscard]] std::span<std::byte const> bytes() const noexcept { return bytes_; }

private:
    std::string name_; ///< for messages
    std::span<std::byte const> bytes_;
};

} // namespace sofattn::lm
