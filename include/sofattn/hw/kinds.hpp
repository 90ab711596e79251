// SPDX-License-Identifier: MIT
// What a stage of a machine is: SOFA's, or a rival's.
#pragma once

#include <sofattn/hw/config_parts.hpp>
#include <sofattn/probe/event.hpp>

#include <string_view>

namespace sofattn::hw {

enum class predictor_kind {
    dlzs,         ///< one operand is a leading-zero code (SOFA)
    two_sided_lz, ///< both are (FACT): a product is a sum of exponents
    multiply,     ///< products of `operand_bits`
    multi_round,  ///< the same; those of the survivors again, with more bits (Energon)
    history,      ///< probabilities of earlier rows and layers, added up (SpAtten)
    none          ///< nothing is predicted, and every key is kept
};
enum class selector_kind {
    sads,           ///< segments, a few entries per iteration (SOFA)
    full_sort,      ///< merges of the whole run
    mean_threshold, ///< a scan for statistics and one against the threshold, twice (Energon)
    quick_select,   ///< halving partitions (SpAtten)
    threshold,      ///< a scan of the softmax of whole rows (Sanger)
    none            ///< every key is kept
};
enum class formal_kind {
    sufa,
    flash_attention_2,
    packed_rows ///< rows split and packed into an array by their kept keys (Sanger)
};

/// Of a checked engine (hw::validate).
[[nodiscard]] inline predictor_kind kind_of(prediction_engine const& e) noexcept {
    std::string_view const kind = e.kind_name;
    return kind == "two_sided_lz"  ? predictor_kind::two_sided_lz
           : kind == "multiply"    ? predictor_kind::multiply
           : kind == "multi_round" ? predictor_kind::multi_round
           : kind == "history"     ? predictor_kind::history
           : kind == "none"        ? predictor_kind::none
                                   : predictor_kind::dlzs;
}
[[nodiscard]] inline selector_kind kind_of(selection_engine const& e) noexcept {
    std::string_view const kind = e.kind_name;
    return kind == "full_sort"        ? selector_kind::full_sort
           : kind == "mean_threshold" ? selector_kind::mean_threshold
           : kind == "quick_select"   ? selector_kind::quick_select
           : kind == "threshold"      ? selector_kind::threshold
           : kind == "none"           ? selector_kind::none
                                      : selector_kind::sads;
}
[[nodiscard]] inline formal_kind kind_of(attention_engine const& e) noexcept {
    return e.kind_name == "flash_attention_2" ? formal_kind::flash_attention_2
           : e.kind_name == "packed_rows"     ? formal_kind::packed_rows
                                              : formal_kind::sufa;
}
/// Whether scores are computed ahead, from K^.
[[nodiscard]] inline bool predicts(prediction_engine const& e) noexcept {
    return kind_of(e) != predictor_kind::none && kind_of(e) != predictor_kind::history;
}

/// What the elements of a predictor do, where it is not told by a trace: DLZS's own is `shift`.
[[nodiscard]] inline probe::event product_of(prediction_engine const& e,
                                             probe::event shift) noexcept {
    switch (kind_of(e)) {
    case predictor_kind::multiply:
    case predictor_kind::multi_round:
        return e.operand_bits <= 4   ? probe::event::multiply_add_4
               : e.operand_bits <= 8 ? probe::event::multiply_add_8
                                     : probe::event::multiply_add_16;
    default: return shift;
    }
}

} // namespace sofattn::hw
