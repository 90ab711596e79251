// SPDX-License-Identifier: MIT
// Weights in the safetensors format: tensors where they lie in a mapped file, one file or shards.
#pragma once

#include "lm/mapped_file.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sofattn::lm {

/// Numbers as they lie in a file; what this program computes with.
using stored_numbers =
    std::variant<std::span<float const>, std::span<half const>, std::span<bfloat16 const>>;

/// A tensor of a file, not copied.
struct stored_tensor {
    std::string name; ///< file and tensor, for messages
    std::string dtype;
    std::vector<index_t> shape;       ///< C order
    std::span<std::byte const> bytes; ///< as many as dtype and shape say

    /// error  dtype is not F32, F16 or BF16; the bytes lie where no such number may
    [[nodiscard]] stored_numbers numbers() const;
    /// The same, of a tensor that must have this shape.
    /// error  as numbers; another shape
    [[nodiscard]] stored_numbers numbers(std::vector<index_t> const& wanted) const;
};

using tensor_map = std::map<std::string, stored_tensor, std::less<>>;

/// The tensors of one file, whose bytes must outlive them: 8 bytes of length, a header of JSON, and
/// the numbers, without gaps between them (github.com/huggingface/safetensors, "Format").
///
/// error  shorter than its header says; a header over 100 MB, as the format limits it; no JSON, or a
///        name twice; a tensor without dtype, shape or data_offsets, or with more; an unknown dtype;
///        a shape that is none, or whose size overflows or differs from the offsets'; tensors that
///        overlap, leave a gap or lie outside
[[nodiscard]] tensor_map parse_safetensors(std::span<std::byte const> file,
                                           std::string const& name);

/// The weights of a model's folder, from model.safetensors or from the shards that
/// model.safetensors.index.json lists.
class weight_files {
public:
    /// error  neither file; as parse_safetensors; an index that names no file of the folder, a
    ///        tensor that its shard lacks, or not all tensors of a shard
    explicit weight_files(std::filesystem::path const& folder);

    [[nodiscard]] bool has(std::string_view name) const { return tensors_.contains(name); }
    /// error  no tensor of that name
    [[nodiscard]] stored_tensor const& at(std::string_view name) const;
    [[nodiscard]] tensor_map const& all() const noexcept { return tensors_; }

private:
    std::string folder_; ///< for messages
    std::vector<mapped_file> files_;
    tensor_map tensors_;
};

} // namespace sofattn::lm
