// SPDX-License-Identifier: MIT
#include <sofattn/core/error.hpp>
#include <sofattn/hw/benchmarks.hpp>
#include <sofattn/hw/workload.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <set>
#include <string>

using namespace sofattn;

TEST_CASE("hw.fig18: the bars' geometric means are about the printed ones") {
    // Printed: .1872 .4321 / .1234 .3736 / .0740 .3260. A typing error in a bar would show.
    double const printed[3][2] = {{.1872, .4321}, {.1234, .3736}, {.0740, .3260}};
    for (std::size_t loss = 0; loss < 3; ++loss) {
        double attention = 0;
        double with_qkv = 0;
        for (auto const& b : hw::fig18) {
            attention += std::log(b.attention[loss]) / 20;
            with_qkv += std::log(b.with_qkv[loss]) / 20;
        }
        CAPTURE(loss);
        // Relative: the bars as read give up to 7.1 % more than the printed means.
        CHECK(std::abs(std::exp(attention) / printed[loss][0] - 1) < 0.075);
        CHECK(std::abs(std::exp(with_qkv) / printed[loss][1] - 1) < 0.075);
    }
}

TEST_CASE("hw.named_workloads: valid, with different names, found by them") {
    std::set<std::string> names;
    for (auto const& w : hw::named_workloads()) {
        CAPTURE(w.name);
        CHECK_NOTHROW(hw::validate(w.of));
        CHECK(names.insert(w.name).second);
        CHECK(hw::find_workload(w.name).doc == w.doc);
        CHECK(w.of.head_dim_count * w.of.heads_count == w.of.width_count);
    }
    CHECK(names.size() == 60 + 8);
    CHECK_THROWS_AS((void)hw::find_workload("gpt5"), error);
}
