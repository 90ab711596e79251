// SPDX-License-Identifier: MIT
#include "lm/safetensors.hpp"

#include "lm/json_input.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

namespace sofattn::lm {

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr std::size_t length_bytes = 8;
constexpr std::uint64_t most_header_bytes = 100'000'000; // the format's own limit

struct known_dtype {
    std::string_view name;
    std::size_t bytes;
};
constexpr std::array<known_dtype, 17> known_dtypes{{{"BOOL", 1},
                                                    {"U8", 1},
                                                    {"I8", 1},
                                                    {"F8_E5M2", 1},
                                                    {"F8_E4M3", 1},
                                                    {"F8_E8M0", 1},
                                                    {"I16", 2},
                                                    {"U16", 2},
                                                    {"F16", 2},
                                                    {"BF16", 2},
                                                    {"I32", 4},
                                                    {"U32", 4},
                                                    {"F32", 4},
                                                    {"F64", 8},
                                                    {"I64", 8},
                                                    {"U64", 8},
                                                    {"C64", 8}}};

std::size_t bytes_of(std::string const& dtype, std::string const& what) {
    auto const* const known = std::ranges::find(known_dtypes, dtype, &known_dtype::name);
    if (known == known_dtypes.end()) {
        throw error(what + ": dtype", io::quoted(dtype), "one of the format's");
    }
    return known->bytes;
}

/// The header's JSON. Trailing spaces are part of the format.
std::string_view header_of(std::span<std::byte const> file, std::string const& name) {
    if (file.size() < length_bytes) {
        throw error(name + ": size", std::to_string(file.size()) + " bytes",
                    "at least 8, which hold the header's length");
    }
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), length_bytes);
    if (length > most_header_bytes) {
        throw error(name + ": header", std::to_string(length) + " bytes",
                    "at most " + std::to_string(most_header_bytes));
    }
    if (length > file.size() - length_bytes) {
        throw error(name + ": header", std::to_string(length) + " bytes",
                    "at most the " + std::to_string(file.size() - length_bytes) +
                        " that the file has after its first 8");
    }
    return {reinterpret_cast<char const*>(file.data()) + length_bytes,
            static_cast<std::size_t>(length)};
}

void check_metadata(json const& metadata, std::string const& name) {
    bool const is_fine =
        metadata.is_object() &&
        std::ranges::all_of(metadata, [](json const& value) { return value.is_string(); });
    if (!is_fine) {
        throw error(name + ": __metadata__", shown_value(metadata), "an object of strings");
    }
}

std::vector<index_t> shape_of(json const& value, std::string const& what) {
    if (!value.is_array()) {
        throw error(what + ": shape", shown_value(value), "an array of whole numbers");
    }
    std::vector<index_t> shape;
    for (json const& extent : value) {
        shape.push_back(
            whole_number(extent, what + ": shape", 0, std::numeric_limits<index_t>::max()));
    }
    return shape;
}

/// Nothing if it is more than 2^63 - 1.
std::optional<std::size_t> size_of(std::vector<index_t> const& shape, std::size_t item_bytes) {
    if (std::ranges::find(shape, 0) != shape.end()) {
        return 0;
    }
    auto product = static_cast<index_t>(item_bytes);
    for (index_t const extent : shape) {
        if (extent > std::numeric_limits<index_t>::max() / product) {
            return std::nullopt;
        }
        product *= extent;
    }
    return static_cast<std::size_t>(product);
}

struct extent_in_file {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::string const* name = nullptr;
};

/// Tensors fill the rest of the file, one after the other.
void check_layout(std::vector<extent_in_file> extents, std::size_t data_bytes,
                  std::string const& name) {
    std::ranges::sort(extents, [](extent_in_file const& a, extent_in_file const& b) {
        return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::size_t end = 0;
    for (extent_in_file const& e : extents) {
        if (e.begin != end) {
            throw error(name + ": tensor " + io::quoted(*e.name) + ": first byte",
                        std::to_string(e.begin),
                        "where the tensor before it ends, " + std::to_string(end) +
                            (e.begin < end ? " (they overlap)" : " (there is a gap)"));
        }
        end = e.end;
    }
    if (end != data_bytes) {
        throw error(name + ": end of the last tensor", std::to_string(end),
                    "that of the file's data, " + std::to_string(data_bytes));
    }
}

} // namespace

stored_numbers stored_tensor::numbers() const {
    auto const as = [&]<class T>(T const*) -> stored_numbers {
        if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0) {
            throw error(name + ": place in the file", "none that " + dtype + " may have",
                        "a multiple of " + std::to_string(alignof(T)) + " bytes");
        }
        return std::span(reinterpret_cast<T const*>(bytes.data()), bytes.size() / sizeof(T));
    };
    if (dtype == "F32") {
        return as(static_cast<float const*>(nullptr));
    }
    if (dtype == "F16") {
        return as(static_cast<half const*>(nullptr));
    }
    if (dtype == "BF16") {
        return as(static_cast<bfloat16 const*>(nullptr));
    }
    throw error(name + ": dtype", dtype, "F32, F16 or BF16");
}

stored_numbers stored_tensor::numbers(std::vector<index_t> const& wanted) const {
    if (shape != wanted) {
        throw error(name + ": shape", io::shape_text(shape), io::shape_text(wanted));
    }
    return numbers();
}

tensor_map parse_safetensors(std::span<std::byte const> file, std::string const& name) {
    std::string_view const header = header_of(file, name);
    json const content = parsed_object(header, name + ": header");
    auto const data = file.subspan(length_bytes + header.size());
    tensor_map tensors;
    std::vector<extent_in_file> extents;
    for (auto const& [key, value] : content.items()) {
        if (key == "__metadata__") {
            check_metadata(value, name);
            continue;
        }
        std::string const what = name + ": tensor " + io::quoted(key);
        if (!value.is_object()) {
            throw error(what, shown_value(value), "an object of dtype, shape and data_offsets");
        }
        stored_tensor tensor;
        tensor.name = what;
        json const& dtype = field(value, "dtype", what, "a string");
        if (!dtype.is_string()) {
            throw error(what + ": dtype", shown_value(dtype), "a string");
        }
        tensor.dtype = dtype.get<std::string>();
        tensor.shape = shape_of(field(value, "shape", what, "an array"), what);
        json const& offsets = field(value, "data_offsets", what, "two whole numbers");
        if (!offsets.is_array() || offsets.size() != 2) {
            throw error(what + ": data_offsets", shown_value(offsets), "two whole numbers");
        }
        if (value.size() != 3) {
            throw error(what + ": fields", std::to_string(value.size()),
                        "3: dtype, shape and data_offsets");
        }
        auto const most = static_cast<index_t>(data.size());
        index_t const begin = whole_number(offsets[0], what + ": data_offsets[0]", 0, most);
        index_t const end = whole_number(offsets[1], what + ": data_offsets[1]", begin, most);
        auto const size = size_of(tensor.shape, bytes_of(tensor.dtype, what));
        if (!size || *size != static_cast<std::size_t>(end - begin)) {
            throw error(what + ": data_offsets", "for " + std::to_string(end - begin) + " bytes",
                        (size ? "for " + std::to_string(*size) : std::string("for the overflow")) +
                            " of " + tensor.dtype + " " + io::shape_text(tensor.shape));
        }
        tensor.bytes = data.subspan(static_cast<std::size_t>(begin), *size);
        auto const at = tensors.emplace(key, std::move(tensor)).first;
        extents.push_back(
            {static_cast<std::size_t>(begin), static_cast<std::size_t>(end), &at->first});
    }
    check_layout(std::move(extents), data.size(), name);
    return tensors;
}

weight_files::weight_files(std::filesystem::path const& folder) : folder_(io::shown(folder)) {
    auto const add = [&](std::filesystem::path const& path) {
        files_.emplace_back(path);
        return parse_safetensors(files_.back().bytes(), files_.back().name());
    };
    std::filesystem::path const single = folder / "model.safetensors";
    std::filesystem::path const index = folder / "model.safetensors.index.json";
    if (!std::filesystem::exists(index) || std::filesystem::exists(single)) {
        tensors_ = add(single);
        return;
    }
    constexpr std::uintmax_t most_index_bytes = 100'000'000; // as a header's
    std::string const name = io::shown(index);
    json const content = parsed_object(read_text(index, most_index_bytes), name);
    json const& map = field(content, "weight_map", name, "an object");
    if (!map.is_object()) {
        throw error(name + ": weight_map", shown_value(map), "an object");
    }
    std::map<std::string, std::set<std::string>> names_of; // shard -> tensors
    for (auto const& [tensor, shard] : map.items()) {
        std::string const what = name + ": weight_map[" + io::quoted(tensor) + "]";
        // A name with folders in it could lead anywhere.
        if (!shard.is_string() || std::filesystem::path(shard.get<std::string>()).filename() !=
                                      shard.get<std::string>()) {
            throw error(what, shown_value(shard), "the name of a file in this folder");
        }
        names_of[shard.get<std::string>()].insert(tensor);
    }
    for (auto const& [shard, names] : names_of) {
        tensor_map held = add(folder / shard);
        for (auto const& tensor : names) {
            if (!held.contains(tensor)) {
                throw error(io::shown(folder / shard) + ": tensor " + io::quoted(tensor), "missing",
                            "there, as " + name + " says");
            }
        }
        for (auto const& [tensor, unused] : held) {
            if (!names.contains(tensor)) {
                throw error(io::shown(folder / shard) + ": tensor " + io::quoted(tensor), "there",
                            "listed in " + name + " for this file");
            }
        }
        tensors_.merge(held);
    }
}

stored_tensor const& weight_files::at(std::string_view name) const {
    auto const found = tensors_.find(name);
    if (found == tensors_.end()) {
        throw error(folder_ + ": tensor " + io::quoted(name), "missing", "in its safetensors");
    }
    return found->second;
}

} // namespace sofattn::lm
