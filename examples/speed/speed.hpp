// SPDX-License-Identifier: MIT
// What sparse prefill gains over dense attention: from the benchmarks' JSON to curves and a picture.
#pragma once

#include <sofattn/core/types.hpp>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::speed {

/// One row of attention/prefill.
struct measurement {
    bool recorded = false; ///< on a trained model's layer, else on made-up data
    int layer = 0;         ///< of the model; 0 for made-up data
    std::string method;    ///< "keys_reused", "pages_bf16", ...
    index_t tokens = 0;
    index_t dim = 0;
    int kept_percent = 0;  ///< what the row aims at, or 0
    int lost_permille = 0; ///< of the mass, the same
    index_t threads = 0;
    double kept = 0;       ///< share of the visible keys that are attended to, in (0, 1]
    double error = 0;      ///< of the output, relative to dense f32 (Frobenius)
    double bf16_error = 0; ///< the same of dense bf16
    double time_ms = 0;    ///< positive
    double index_ms = 0;   ///< coding the keys, not part of time_ms
    double over_f32 = 0;   ///< time of dense attention in f32 over time_ms, positive
    double over_bf16 = 0;  ///< the same with bf16 products
    double over_int8 = 0;  ///< the same with 8-bit products
};

/// What one or more files of Google Benchmark have of attention/prefill.
struct measurements {
    std::vector<measurement> rows; ///< the median where a row was repeated
    std::string files;             ///< for messages
    std::string date;              ///< YYYY-MM-DD of the first file, or empty
};

/// `text`: what --benchmark_format=json or --benchmark_out writes; `file` is its name. Other
/// benchmarks' rows are passed over, rows that were skipped too. Repetitions are not merged yet.
///
/// error  no JSON (line and column), no benchmarks in it, a prefill row without a number that
///        belongs there or with one out of range (which), no prefill row that was measured
[[nodiscard]] measurements parse(std::string_view text, std::string const& file);

/// The rows of all files.
/// error  no file that can be read; as parse
[[nodiscard]] measurements read(std::vector<std::filesystem::path> const& files);

/// Which rows are shown.
struct choice {
    std::vector<std::string> methods{"keys_reused", "pages_f32", "pages_bf16"}; ///< that have rows
    index_t dim = 128;
    index_t threads = 1;
    index_t tokens = 8192; ///< of the curves over the error
    int kept_percent = 5;  ///< of the curves over tokens, where keys are chosen
    int lost_permille = 3; ///< the same where pages are
};

/// One row on one layer, or the mean over layers: geometric of speeds, else arithmetic.
struct point {
    index_t tokens = 0;
    double kept = 0;
    double error = 0;
    double bf16_error = 0;
    double over_f32 = 0;
    double over_bf16 = 0;
    double over_int8 = 0;
    double over_f32_with_index = 0; ///< counting the index as part of the sparse time
};

/// A mean over layers and what it is made of.
struct mean_point {
    point mean;
    std::vector<point> layers; ///< one or more
};

struct curve {
    std::string method;
    std::string data; ///< "recorded, layers 5, 16" or "random"
    std::vector<mean_point> points;
};

struct curves {
    choice of;
    std::vector<curve> over_error;  ///< sorted by error
    std::vector<curve> over_tokens; ///< by tokens
    std::string date;
};

/// Method by method, recorded data first; each curve has one point or more.
/// error  a choice that no row fits (which, and what there is)
[[nodiscard]] curves curves_of(measurements const& from, choice const& wanted);

/// Two tables, with the ranges over layers.
[[nodiscard]] std::string to_text(curves const& all);

/// Two panels of speeds over dense f32, one over the output's error and one over tokens, as an SVG picture that
/// follows the reader's light or dark colours.
[[nodiscard]] std::string to_svg(curves const& all);

} // namespace sofattn::speed
