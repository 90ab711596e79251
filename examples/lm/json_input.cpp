// SPDX-License-Identifier: MIT
#include "lm/json_input.hpp"

#include <unordered_set>
#include <vector>

namespace sofattn::lm {

json parsed_object(std::string_view text, std::string const& name) {
    std::vector<std::unordered_set<std::string>> keys; // of the objects that are open
    auto const no_key_twice = [&](int, json::parse_event_t event, json& value) {
        if (event == json::parse_event_t::object_start) {
            keys.emplace_back();
        } else if (event == json::parse_event_t::object_end) {
            keys.pop_back();
        } else if (event == json::parse_event_t::key &&
                   !keys.back().insert(value.get<std::string>()).second) {
            throw error(name + ": key " + io::quoted(value.get_ref<std::string const&>()),
                        "there twice", "there once");
        }
        return true;
    };
    json content;
    try {
        content = json::parse(text.begin(), text.end(), no_key_twice);
    } catch (json::parse_error const& e) {
        throw error(name + ": content", "not JSON from byte " + std::to_string(e.byte) + " on",
                    "JSON");
    } catch (json::out_of_range const&) { // the parser's only one, of numbers such as 1e999
        throw error(name + ": content", "JSON with a number that no double holds",
                    "JSON with smaller numbers");
    }
    if (!content.is_object()) {
        throw error(name + ": content", "JSON " + std::string(content.type_name()),
                    "a JSON object");
    }
    return content;
}

std::string read_text(std::filesystem::path const& path, std::uintmax_t most_bytes) {
    io::input_file file(path);
    if (file.size > most_bytes) {
        throw error(file.name + ": size", std::to_string(file.size) + " bytes",
                    "at most " + std::to_string(most_bytes));
    }
    std::string text(static_cast<std::size_t>(file.size), '\0');
    file.read(text.data(), text.size());
    return text;
}

} // namespace sofattn::lm
