// SPDX-License-Identifier: MIT
#include "tune/sizes.hpp"

#include "hw/json_file.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/io/file.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <system_error>

namespace sofattn::tune {

namespace {

constexpr char const* format_name = "sofattn-tiles-1";
constexpr std::uintmax_t max_bytes = 1 << 20;

std::string short_text(json const& value) {
    constexpr std::size_t most = 60;
    std::string const text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    return text.size() > most ? text.substr(0, most) + "..." : text;
}

json const& field_of(json const& object, std::string const& name, std::string const& where,
                     char const* kind) {
    if (!object.is_object() || !object.contains(name)) {
        throw error(where + name, "missing", kind);
    }
    return object.at(name);
}

void check_same(json const& object, char const* name, json const& wanted,
                std::string const& where) {
    json const& found = field_of(object, name, where, short_text(wanted).c_str());
    if (found != wanted) {
        throw error(where + name, short_text(found),
                    short_text(wanted) + ", as here; --again measures anew and replaces the file");
    }
}

index_t count_of(json const& object, char const* name, std::string const& where) {
    json const& found = field_of(object, name, where, "a whole number");
    if (!found.is_number_integer()) {
        throw error(where + name, short_text(found), "a whole number");
    }
    return found.get<index_t>();
}

sufa::block_tiles tiles_from(json const& all, char const* kernel, std::string const& where) {
    json const& object = field_of(all, kernel, where, "an object with keys and rows");
    std::string const inner = where + kernel + ".";
    sufa::block_tiles const tiles{count_of(object, "keys", inner), count_of(object, "rows", inner)};
    if (!tiles.is_valid()) {
        using t = sufa::block_tiles;
        throw error(where + kernel,
                    std::to_string(tiles.keys) + " keys, " + std::to_string(tiles.rows) + " rows",
                    "keys from " + std::to_string(t::keys_least) + " to " +
                        std::to_string(t::keys_most) + " in steps of " +
                        std::to_string(t::keys_step) + ", rows from " +
                        std::to_string(t::rows_least) + " to " + std::to_string(t::rows_most));
    }
    return tiles;
}

decode_parts parts_from(json const& all, std::string const& where) {
    json const& object = field_of(all, "dense_decode", where, "an object with keys_least");
    decode_parts const parts{count_of(object, "keys_least", where + "dense_decode.")};
    if (!parts.is_valid()) {
        throw error(where + "dense_decode.keys_least", std::to_string(parts.keys_least),
                    "a multiple of " + std::to_string(decode_parts::step) + " up to 2^20");
    }
    return parts;
}

json to_json(sufa::block_tiles tiles) { return {{"keys", tiles.keys}, {"rows", tiles.rows}}; }

json to_json(dse::time_ratio const& r) {
    json object = {{"median", r.median}, {"pairs_count", r.pairs}};
    if (std::isfinite(r.highest)) { // else too few pairs
        object["lowest"] = r.lowest;
        object["highest"] = r.highest;
    }
    return object;
}

/// The first value of a field of /proc/cpuinfo; empty where there is none.
std::string of_cpuinfo(std::string_view field) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        auto const colon = line.find(':');
        if (colon != std::string::npos &&
            line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1) == field) {
            auto const value = line.find_first_not_of(" \t", colon + 1);
            return value == std::string::npos ? "" : line.substr(value);
        }
    }
    return {};
}

} // namespace

machine this_machine(index_t dim, index_t threads) {
    machine m;
    std::string const name = of_cpuinfo("model name");
    m.processor = name.empty() ? "unknown" : name;
    for (char const* const field :
         {"cpu family", "model", "stepping", "CPU part"}) { // the last: Arm
        if (std::string const value = of_cpuinfo(field); !value.empty()) {
            m.processor += std::string(", ") + field + " " + value;
        }
    }
    m.instructions = std::to_string(8 * sizeof(exec::vector_float)) + "-bit registers" +
                     (exec::dot_bias != 0 ? ", dot products of bytes" : "") +
                     (exec::has_bf16_dot ? ", of bf16" : "");
    m.library = SOFATTN_VERSION;
    m.dim = dim;
    m.threads = threads;
    return m;
}

json to_json(tuned_sizes const& all) {
    json object = {{"format", format_name},
                   {"processor", all.of.processor},
                   {"instructions", all.of.instructions},
                   {"library", all.of.library},
                   {"dim", all.of.dim},
                   {"threads", all.of.threads}};
    object["tiles"] = {{"dense_f32", to_json(all.found.f32)},
                       {"dense_bf16", to_json(all.found.bf16)},
                       {"dense_int8", to_json(all.found.int8)},
                       {"dense_decode", {{"keys_least", all.found.decode.keys_least}}}};
    json& measurements = object["measured"] = json::object();
    for (measured const& m : all.kernels) {
        measurements[m.kernel] = {{"is_default", m.is_default},
                                  {"time_over_default", to_json(m.ratio)},
                                  {"default_over_itself", to_json(m.noise)},
                                  {"evaluations_count", m.evaluations}};
    }
    return object;
}

void make_folder_of(std::filesystem::path const& file) {
    if (auto const folder = file.parent_path(); !folder.empty()) {
        std::error_code code;
        std::filesystem::create_directories(folder, code);
        if (code) {
            throw error(io::shown(folder), "not to be made (" + code.message() + ")", "a folder");
        }
    }
    io::atomic_file const tried(file);
}

void write_sizes(std::filesystem::path const& file, tuned_sizes const& all) {
    io::atomic_file out(file);
    out.write(to_json(all).dump(2) + "\n");
    out.commit();
}

std::optional<tuned_sizes> read_sizes(std::filesystem::path const& file, machine const& wanted) {
    std::error_code code;
    if (!std::filesystem::exists(std::filesystem::status(file, code))) {
        return std::nullopt;
    }
    json const found = hw::read_json<json>(file, max_bytes);
    std::string const where = io::shown(file) + ": ";
    json const& format = field_of(found, "format", where, format_name);
    if (format != format_name) {
        throw error(where + "format", short_text(format), format_name);
    }
    check_same(found, "processor", wanted.processor, where);
    check_same(found, "instructions", wanted.instructions, where);
    check_same(found, "library", wanted.library, where);
    check_same(found, "dim", wanted.dim, where);
    check_same(found, "threads", wanted.threads, where);
    json const& tiles = field_of(found, "tiles", where, "an object");
    tuned_sizes all{wanted, {}, {}};
    std::string const inner = where + "tiles.";
    all.found.f32 = tiles_from(tiles, "dense_f32", inner);
    all.found.bf16 = tiles_from(tiles, "dense_bf16", inner);
    all.found.int8 = tiles_from(tiles, "dense_int8", inner);
    all.found.decode = parts_from(tiles, inner);
    return all;
}

std::filesystem::path default_file() {
    // The XDG Base Directory Specification ignores paths that are not absolute.
    auto const absolute = [](char const* name) -> std::filesystem::path {
        char const* const value = std::getenv(name);
        std::filesystem::path const path(value == nullptr ? "" : value);
        return path.is_absolute() ? path : std::filesystem::path();
    };
    auto folder = absolute("XDG_CACHE_HOME");
    if (folder.empty()) {
        auto const home = absolute("HOME");
        if (home.empty()) {
            throw error("XDG_CACHE_HOME and HOME", "not set to absolute paths",
                        "one of them, or --out a file");
        }
        folder = home / ".cache";
    }
    return folder / "sofattn" / "tiles.json";
}

} // namespace sofattn::tune
