// SPDX-License-Identifier: MIT
// The paper's figures beside ours: what comes out, why, and what does not.
#pragma once

#include "hw/described_json.hpp"

#include <string>
#include <vector>

namespace sofattn::hw {

enum class status {
    reproduced,  ///< computed from other figures or by the model
    calibrated,  ///< comes out because a constant was set so
    input,       ///< printed figures that the model is given
    contradicted ///< cannot be reproduced
};
[[nodiscard]] std::string to_string(status s);

struct table_row {
    std::string table; ///< "Table II", "Fig. 15"
    std::string what;
    double paper = 0; ///< 0: none
    double ours = 0;  ///< 0: none
    std::string unit;
    status how = status::reproduced;
    std::string reason{};

    /// In percent.
    [[nodiscard]] double deviation_percent() const noexcept {
        return paper == 0 ? 0 : 100 * (ours / paper - 1);
    }
};

[[nodiscard]] std::vector<table_row> paper_rows();

/// A row as text: figure ("Fig. 15: loads"), paper's value, ours, unit, deviation, status; "-" for a
/// value that is 0, which stands for none.
[[nodiscard]] std::vector<std::string> to_cells(table_row const& row);
[[nodiscard]] std::string to_text(std::vector<table_row> const& rows);
[[nodiscard]] std::string to_csv(std::vector<table_row> const& rows);
[[nodiscard]] json to_json(std::vector<table_row> const& rows);

} // namespace sofattn::hw
