// SPDX-License-Identifier: MIT
// Model folders for tests: safetensors word by word.
#pragma once

#include "support/temporary_folder.hpp"
#include <sofattn/core/types.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::test {

using json = nlohmann::json;

struct written_tensor {
    std::string name;
    std::string dtype;
    std::vector<index_t> shape;
    std::string bytes;
};

/// length | header | data, right or wrong.
inline std::string safetensors_bytes(std::string const& header, std::string const& data) {
    auto const length = static_cast<std::uint64_t>(header.size());
    std::string prefix(sizeof length, '\0');
    std::memcpy(prefix.data(), &length, sizeof length);
    return prefix + header + data;
}

/// A file as the format wants it, with the header padded to whole words.
inline std::string safetensors_bytes(std::vector<written_tensor> const& tensors) {
    json header = {{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (auto const& t : tensors) {
        header[t.name] = {{"dtype", t.dtype},
                          {"shape", t.shape},
                          {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
        data += t.bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return safetensors_bytes(text, data);
}

template <class T>
std::string bytes_of(std::vector<T> const& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

} // namespace sofattn::test
