// SPDX-License-Identifier: MIT
// Queries, keys and values of a model on a text, as sofattn-attend and sofattn-calibrate read them.
#pragma once

#include "lm/decoder.hpp"
#include "lm/tokenizer.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sofattn::lm {

struct record_options {
    std::string model;           ///< name in the manifest
    std::string text;            ///< where the tokens come from, for readers
    std::vector<index_t> layers; ///< empty: all
};

/// Runs a window with dense attention and writes what each layer attends to: Lnn_q.npy [head, token,
/// dim] and Lnn_k.npy, Lnn_v.npy [kv_head, token, dim] in f16, keys rotated; last manifest.json,
/// without which the folder is none.
///
/// in     folder    is made where it is not there; must have no manifest yet
///        progress  share of the work in [0, 1]
/// error  a layer that the model does not have; a folder that has a manifest, or takes no file; a
///        number that f16 does not hold; a token that the model does not have
void record(decoder const& model, std::span<token_id const> window,
            std::filesystem::path const& folder, record_options const& options,
            exec::openmp const& run, std::function<void(double share)> const& progress);

} // namespace sofattn::lm
