// SPDX-License-Identifier: MIT
// Sizes of tiles as they are measured, kept in a file, and used.
#pragma once

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/dse/interleaved.hpp>
#include <sofattn/sufa/block_tiles.hpp>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::tune {

using json = nlohmann::ordered_json;

/// What dense attention and decode take beside their problem; the library's own where nothing was found.
struct sizes {
    sufa::block_tiles f32 = default_tiles<dense_products::f32>;
    sufa::block_tiles bf16 = default_tiles<dense_products::bf16>;
    sufa::block_tiles int8 = default_tiles<dense_products::int8>;
    decode_parts decode{};

    friend bool operator==(sizes const&, sizes const&) = default;
};

/// What sizes were measured on: of anything else they say nothing.
struct machine {
    std::string processor;    ///< name, family, model, stepping
    std::string instructions; ///< that this program was compiled for
    std::string library;      ///< version
    index_t dim = 128;        ///< of heads
    index_t threads = 1;      ///< that decode is cut for

    friend bool operator==(machine const&, machine const&) = default;
};
/// The one at hand.
/// error  none: an unknown processor is called that
[[nodiscard]] machine this_machine(index_t dim, index_t threads);

/// What was measured of one kernel, for readers.
struct measured {
    std::string kernel;
    bool is_default = true;
    dse::time_ratio ratio{};
    dse::time_ratio noise{};
    index_t evaluations = 0;
};

struct tuned_sizes {
    machine of;
    sizes found{};
    std::vector<measured> kernels{};
};

[[nodiscard]] json to_json(tuned_sizes const& all);

/// Makes the folder of a file to be written, and tries whether it takes one.
/// error  it does not
void make_folder_of(std::filesystem::path const& file);
/// Complete or not at all.
/// error  a file that cannot be written
void write_sizes(std::filesystem::path const& file, tuned_sizes const& all);

/// What the file holds, or nothing if there is none.
/// error  a file that is none of sofattn-tune's (file, line or field), or of another processor,
///        instruction level, library, head size or number of threads (file, field, both values); it is
///        read only
[[nodiscard]] std::optional<tuned_sizes> read_sizes(std::filesystem::path const& file,
                                                    machine const& wanted);

/// Where sizes are kept if nobody says otherwise: sofattn/tiles.json in $XDG_CACHE_HOME, or else in
/// $HOME/.cache.
/// error  neither is set to an absolute path
[[nodiscard]] std::filesystem::path default_file();

} // namespace sofattn::tune
