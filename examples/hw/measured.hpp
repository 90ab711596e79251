// SPDX-License-Identifier: MIT
// Figures of the paper that take recorded data: operations and loads of a sample of two layers.
#pragma once

#include "hw/tables.hpp"

#include <filesystem>
#include <vector>

namespace sofattn::hw {

/// Fig. 17, SU-FA against its rivals, and Fig. 20a, measured on the two layers of examples/data with the
/// reference's arithmetic. What the paper leaves open is set once, for all rows: tiles of 16 keys,
/// as in its Fig. 5; weights `sofa_inferred`; the kept shares that Fig. 18 gives for 0 and 2 % loss.
/// A row is called reproduced within 5 points of the paper's percentage, 10 for traffic. Throws
/// `error` where `folder` lacks the sample. Takes seconds.
[[nodiscard]] std::vector<table_row> measured_rows(std::filesystem::path const& folder);

} // namespace sofattn::hw
