// SPDX-License-Identifier: MIT
// JSON files as tools read them: no larger than makes sense, and what is no JSON named by its line.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/io/file.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sofattn::hw {

/// Json: nlohmann::json, or nlohmann::ordered_json where the order of fields matters. Throws `error`
/// for a file larger than so many bytes, or that is no JSON.
template <class Json>
[[nodiscard]] Json read_json(std::filesystem::path const& path, std::uintmax_t max_bytes) {
    io::input_file file(path);
    if (file.size > max_bytes) {
        throw error(file.name + ": size in bytes", std::to_string(file.size),
                    "at most " + std::to_string(max_bytes));
    }
    std::string text(static_cast<std::size_t>(file.size), '\0');
    file.read(text.data(), text.size());
    try {
        return Json::parse(text);
    } catch (nlohmann::json::parse_error const& e) {
        std::size_t const at = std::min(e.byte > 0 ? e.byte - 1 : 0, text.size());
        auto const line =
            std::count(text.begin(), text.begin() + static_cast<index_t>(at), '\n') + 1;
        throw error(file.name + ": line " + std::to_string(line),
                    at < text.size() ? io::quoted(std::string_view(text).substr(at, 20))
                                     : "the end of the file",
                    "valid JSON");
    } catch (nlohmann::json::exception const&) { // a number beyond double
        throw error(file.name + ": content", "not valid", "valid JSON");
    }
}

} // namespace sofattn::hw
