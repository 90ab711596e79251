// SPDX-License-Identifier: MIT
// Files from outside and files for outside: nothing read is believed, nothing is left half written.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace sofattn::io {

// --- text of messages ----------------------------------------------------------------------------

/// `text` in double quotes and fit for one line: bytes outside printable ASCII as \xNN, and no more
/// than 60 of them, since a broken file can hold anything.
[[nodiscard]] inline std::string quoted(std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    constexpr std::size_t limit = 60;
    std::string result = "\"";
    for (char c : text.substr(0, limit)) {
        auto const byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f) {
            result += c;
        } else {
            result += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
        }
    }
    return result + (text.size() > limit ? "...\"" : "\"");
}

/// The path as messages show it: as given, but a control byte in a name must not break the line.
[[nodiscard]] inline std::string shown(std::filesystem::path const& path) {
    std::string name = path.string();
    for (char& c : name) {
        auto const byte = static_cast<unsigned char>(c);
        c = byte < 0x20 || byte == 0x7f ? '?' : c;
    }
    return name;
}

/// A shape as Python writes it: "()", "(3,)", "(8, 2048, 64)"; long ones end in "...".
[[nodiscard]] inline std::string shape_text(std::span<index_t const> shape) {
    constexpr std::size_t limit = 8; // extents: more than any array here has
    std::string text = "(";
    for (std::size_t a = 0; a < std::min(shape.size(), limit); ++a) {
        text += (a == 0 ? "" : ", ") + std::to_string(shape[a]);
    }
    return text + (shape.size() == 1 ? ",)" : shape.size() > limit ? ", ...)" : ")");
}

// --- files ---------------------------------------------------------------------------------------

/// A regular file opened for reading.
struct input_file {
    std::string name; ///< for messages
    std::ifstream stream;
    std::uintmax_t size = 0; ///< bytes

    /// error  missing, not a regular file (a pipe has no size to check against), unreadable
    explicit input_file(std::filesystem::path const& path) : name(shown(path)) {
        std::error_code code;
        auto const status = std::filesystem::status(path, code);
        if (status.type() == std::filesystem::file_type::not_found) {
            throw error(name, "missing", "a readable file");
        }
        if (!code && !std::filesystem::is_regular_file(status)) {
            throw error(name, std::filesystem::is_directory(status) ? "a folder" : "a special file",
                        "a regular file");
        }
        if (!code) {
            size = std::filesystem::file_size(path, code);
        }
        if (!code) {
            errno = 0;
            stream.open(path, std::ios::binary);
            if (!stream) {
                code.assign(errno, std::generic_category());
            }
        }
        if (code || !stream) {
            throw error(name, "unreadable (" + code.message() + ")", "a readable file");
        }
    }

    /// The next `count` bytes.
    /// error  the file ends before (it shrank since it was opened), or the disk fails
    void read(void* to, std::size_t count) {
        stream.read(static_cast<char*>(to), static_cast<std::streamsize>(count));
        if (auto const got = static_cast<std::size_t>(stream.gcount()); got != count) {
            throw error(name + ": number of bytes read", std::to_string(got),
                        std::to_string(count));
        }
    }
};

/// A file that appears complete or not at all: it is written beside its target under another name,
/// which `commit` turns into the target's. Without `commit`, nothing is left. An existing target is
/// replaced (a link by a file), but never one that is not a regular file, such as a device.
class atomic_file {
public:
    /// error  the folder does not exist or takes no file, or the target is no regular file
    explicit atomic_file(std::filesystem::path target) : target_(std::move(target)) {
        std::error_code code;
        auto const status = std::filesystem::status(target_, code);
        if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
            throw error(shown(target_),
                        std::filesystem::is_directory(status) ? "a folder" : "a special file",
                        "a regular file or a new one");
        }
        // Created exclusively, so that two writers of one target never share a file.
        for (int attempt = 0; attempt < 100 && file_ == nullptr; ++attempt) {
            partial_ = target_;
            partial_ += ".partial" + std::to_string(attempt);
            errno = 0;
            file_ = std::fopen(partial_.string().c_str(), "wbx");
            if (file_ == nullptr && errno != EEXIST) {
                break;
            }
        }
        if (file_ == nullptr) {
            partial_.clear(); // another writer's
            fail(errno);
        }
    }
    atomic_file(atomic_file const&) = delete;
    atomic_file& operator=(atomic_file const&) = delete;
    ~atomic_file() { discard(); }

    /// error  the disk takes no more
    void write(void const* data, std::size_t bytes) {
        if (file_ == nullptr || std::fwrite(data, 1, bytes, file_) != bytes) {
            fail(errno);
        }
    }
    void write(std::string_view text) { write(text.data(), text.size()); }

    /// Nothing may be written after it.
    /// error  as write
    void commit() {
        bool const closed = file_ != nullptr && std::fclose(std::exchange(file_, nullptr)) == 0;
        if (!closed) {
            fail(errno);
        }
        std::error_code code;
        std::filesystem::rename(partial_, target_, code);
        if (code) {
            fail(code.value());
        }
        partial_.clear();
    }

private:
    [[noreturn]] void fail(int number) {
        discard();
        throw error(shown(target_),
                    "not writable (" + std::generic_category().message(number) + ")",
                    "a writable file");
    }
    void discard() noexcept {
        if (file_ != nullptr) {
            std::fclose(std::exchange(file_, nullptr));
        }
        if (!partial_.empty()) {
            std::error_code ignored;
            std::filesystem::remove(partial_, ignored);
            partial_.clear();
        }
    }

    std::filesystem::path target_;
    std::filesystem::path partial_;
    std::FILE* file_ = nullptr;
};

} // namespace sofattn::io
