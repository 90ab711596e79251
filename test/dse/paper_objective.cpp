// SPDX-License-Identifier: MIT
#include <sofattn/core/error.hpp>
#include <sofattn/dse/paper_objective.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;

TEST_CASE("dse.paper_objective: Eq. 2 by hand") {
    // S = 512, k = 0.1, Tc = 2, 4, 8: Bc = 256, 128, 64.
    // L_cmp = (25.6 + 12.8 + 6.4) / (3 * 51.2) = 44.8 / 153.6 = 7/24; L_exp = 2 + 4 + 8 = 14.
    std::vector<index_t> const tiles{2, 4, 8};
    CHECK(computation_term(tiles, 512, 0.1) == doctest::Approx(7.0 / 24.0).epsilon(1e-15));
    CHECK(exponential_term(tiles) == 14.0);
    CHECK(share_of_exponentials(tiles) == doctest::Approx(14.0 / 96.0).epsilon(1e-15));
    auto const bert = find_paper_weights("bert");
    CHECK(paper_objective(2.5, tiles, 512, 0.1, bert) ==
          doctest::Approx(2.5 + 0.24 * 7.0 / 24.0 + 0.31 * 14.0).epsilon(1e-15));
    CHECK(balanced_objective(2.5, tiles, 512, 0.1, bert) ==
          doctest::Approx(2.5 + 0.24 * 7.0 / 24.0 + 0.31 * 14.0 / 96.0).epsilon(1e-15));
}

TEST_CASE("dse.paper_objective: as printed, keep ratio and tokens cancel") {
    std::vector<index_t> const tiles{2, 32, 16, 6};
    double const term = computation_term(tiles, 4096, 0.5);
    for (double const kept : {0.05, 0.1, 0.3}) {
        for (double const keys : {96.0, 512.0, 4096.0}) {
            CHECK(computation_term(tiles, keys, kept) == doctest::Approx(term).epsilon(1e-14));
        }
    }
}

TEST_CASE("dse.paper_objective: weights of the paper's models, and no others") {
    CHECK(find_paper_weights("vit") == paper_weights{0.2, 0.24});
    CHECK(find_paper_weights("gpt2") == paper_weights{0.4, 0.42});
    CHECK(find_paper_weights("bloom_1b7") == paper_weights{0.53, 0.56});
    CHECK(find_paper_weights("llama_7b") == paper_weights{0.58, 0.63});
    CHECK(find_paper_weights("llama_13b") == paper_weights{0.58, 0.63});
    try {
        static_cast<void>(find_paper_weights("llama"));
        FAIL("accepted");
    } catch (error const& e) {
        CHECK(std::string(e.what()).find("\"llama\", must be bert or vit or") != std::string::npos);
    }
}
