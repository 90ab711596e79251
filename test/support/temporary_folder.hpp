// SPDX-License-Identifier: MIT
// A folder for the files of one test, gone when the test is over.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace sofattn::test {

class temporary_folder {
public:
    temporary_folder() {
        std::random_device random; // test programs run side by side
        for (int attempt = 0; attempt < 100; ++attempt) {
            path_ = std::filesystem::temp_directory_path() /
                    ("sofattn-test-" + std::to_string(random()));
            if (std::filesystem::create_directory(path_)) {
                return;
            }
        }
        throw std::runtime_error("temporary_folder: no free name in " + path_.string());
    }
    temporary_folder(temporary_folder const&) = delete;
    temporary_folder& operator=(temporary_folder const&) = delete;
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }
    [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
        return path_ / name;
    }

    /// Files and folders in it, not counting those of subfolders.
    [[nodiscard]] std::size_t entries() const {
        return static_cast<std::size_t>(
            std::distance(std::filesystem::directory_iterator(path_), {}));
    }

private:
    std::filesystem::path path_;
};

/// Replaces the file by these bytes.
inline void write_bytes(std::filesystem::path const& path, std::string_view bytes) {
    std::ofstream stream(path, std::ios::binary | std::ios::trunc);
    stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    stream.close();
    if (!stream) {
        throw std::runtime_error("write_bytes: cannot write " + path.string());
    }
}

/// All bytes of the file.
[[nodiscard]] inline std::string read_bytes(std::filesystem::path const& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) {
        throw std::runtime_error("read_bytes: cannot read " + path.string());
    }
    return {std::istreambuf_iterator<char>(stream), {}};
}

} // namespace sofattn::test
